// The connections: a Hyperswarm with one Noise identity, which lets in enrolled keys only.

import DHT from 'hyperdht'
import Hyperswarm from 'hyperswarm'

// Peers that join in the same moment miss each other in their first look; these find them.
export const REFRESHES_MS = [50, 150, 400, 1_000, 2_000, 4_000]
const STEADY_REFRESH_MS = 60_000
const LOST_FOR_MS = 600_000
const FIRST_BAN_MS = 60_000
const LONGEST_BAN_MS = 3_600_000
// Reconnects after attempts that failed; what is found again by a refresh is tried at once.
const BACKOFFS_MS = [300, 1_000, 3_000, 600_000]

export class Swarm {
  constructor ({ seed, bootstrap, host, port, maxPeers, interval, trust, onConnection, onStranger, log }) {
    Object.assign(this, { interval, trust, onStranger, log })
    this.sessions = new Map()
    this.timers = new Set()
    this.bans = new Map()
    this.lost = new Map()
    this.leaving = new Set()
    this.refreshedAt = performance.now()
    const options = { port }
    if (bootstrap !== null) options.bootstrap = bootstrap
    if (host) Object.assign(options, { host, firewalled: false })
    this.dht = new DHT(options)
    this.hyperswarm = new Hyperswarm({
      dht: this.dht,
      keyPair: DHT.keyPair(seed),
      maxPeers,
      backoffs: BACKOFFS_MS,
      jitter: 100,
      firewall: (key) => !this.isLetIn(key.toString('hex')),
    })
    this.hyperswarm.on('connection', (connection) => {
      const key = connection.remotePublicKey.toString('hex')
      // Keys may have been revoked since its handshake began.
      if (!this.isLetIn(key)) return connection.on('error', () => {}).destroy()
      this.lost.delete(key)
      let why = 'closed'
      connection.on('error', (error) => { why = error.message })
      connection.on('close', () => {
        if (!this.leaving.delete(key)) this.lost.set(key, performance.now())
        this.log('debug', 'A peer is gone.', { peer: key, why })
      })
      onConnection(connection, key)
    })
  }

  get publicKey () {
    return this.hyperswarm.keyPair.publicKey.toString('hex')
  }

  async ready () {
    await this.dht.bind()
    return this.dht.address().port
  }

  isLetIn (key) {
    const banned = this.bans.get(key)
    if (banned !== undefined && banned.until > performance.now()) return false
    if (this.trust.peers.has(key)) return true
    this.onStranger(key)
    return false
  }

  join (topic) {
    const session = this.hyperswarm.join(topic, { server: true, client: true })
    this.sessions.set(topic.toString('hex'), session)
    for (const delay of REFRESHES_MS) this.later(delay, () => this.refresh(session))
  }

  // A peer that said goodbye is not looked for when its connection ends.
  expectEnd (key) {
    for (const connection of this.hyperswarm.connections) {
      if (connection.remotePublicKey.toString('hex') === key) this.leaving.add(key)
    }
    this.lost.delete(key)
  }

  async leave (topic) {
    const session = this.sessions.get(topic.toString('hex'))
    this.sessions.delete(topic.toString('hex'))
    await session?.destroy()
  }

  // What was turned away before may come now.
  letIn (keys) {
    let isNew = false
    for (const key of keys) {
      const info = this.hyperswarm.peers.get(key)
      if (info?.banned) {
        info.ban(false)
        isNew = true
      }
    }
    if (isNew) this.refreshAll()
  }

  dropUntrusted () {
    for (const connection of this.hyperswarm.connections) {
      const key = connection.remotePublicKey.toString('hex')
      if (!this.trust.peers.has(key)) connection.destroy()
    }
  }

  ban (key, reason) {
    const before = this.bans.get(key)?.length ?? FIRST_BAN_MS / 2
    const length = Math.min(before * 2, LONGEST_BAN_MS)
    this.bans.set(key, { until: performance.now() + length, length })
    this.log('warning', 'A peer breaks the protocol. It is turned away for a while.', { peer: key, reason, seconds: length / 1000 })
    this.later(length, () => this.letIn([key]))
  }

  // Once in each interval: look again while somebody is missing, and now and then anyway.
  tick () {
    const now = performance.now()
    for (const [key, at] of this.lost) {
      if (now - at > LOST_FOR_MS || !this.trust.peers.has(key)) this.lost.delete(key)
    }
    const isLonely = this.hyperswarm.connections.size === 0
    // Where its first announcement of itself was lost, it would make the next one after five minutes.
    if (isLonely) this.hyperswarm.server.refresh()
    if (isLonely || this.lost.size > 0 || now - this.refreshedAt >= STEADY_REFRESH_MS) this.refreshAll()
  }

  refreshAll () {
    this.refreshedAt = performance.now()
    for (const session of this.sessions.values()) this.refresh(session)
  }

  refresh (session) {
    if (!session.destroyed) session.refresh({ server: true, client: true }).catch((error) => this.log('debug', 'Looking for peers failed.', { error: error.message }))
  }

  later (delay, action) {
    const timer = setTimeout(() => {
      this.timers.delete(timer)
      action()
    }, delay)
    this.timers.add(timer)
  }

  async close () {
    for (const timer of this.timers) clearTimeout(timer)
    await this.hyperswarm.destroy()
  }
}
