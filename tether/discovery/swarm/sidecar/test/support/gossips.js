// Gossips that talk to each other, or to a peer that only writes down what it is told.

import { duplexPair } from 'node:stream'

import SecretStream from '@hyperswarm/secret-stream'

import { Gossip } from '../../source/gossip.js'
import { NETWORK, topicState, trustOf } from './messages.js'

export class Clock {
  constructor () {
    this.now = 1_000
  }
}

// One with what it heard and whom it turned away, and with one topic.
export function makeGossip (t, { keys, operators = [], clock = new Clock(), role = 'worker', topics, random = () => 0 }) {
  const heard = []
  const turnedAway = []
  const gossip = new Gossip({
    network: NETWORK,
    role,
    interval: 5_000,
    expiry: 15_000,
    trust: trustOf(keys, operators),
    onHeard: (state, entry) => heard.push({ topic: state.name, ...entry }),
    onOffence: (key, reason) => turnedAway.push({ key, reason }),
    random,
    now: () => clock.now,
  })
  const states = topics ?? [topicState()]
  for (const state of states) gossip.addTopic(state)
  t.after(() => gossip.close())
  return { gossip, state: states[0], clock, heard, turnedAway }
}

export class WritingPeer {
  constructor (gossip, state) {
    this.topics = new Set([state.id])
    this.told = []
    this.withdrawn = []
    this.digests = []
    this.wants = []
    this.offences = []
    this.mayVerify = true
    this.roundTrip = null
    gossip.peers.add(this)
  }

  offer (state, entry) {
    this.told.push(entry)
  }

  withdraw (offered, hash) {
    this.withdrawn.push({ offered, hash })
  }

  digest (digest) {
    this.digests.push(digest)
  }

  want (want) {
    this.wants.push(want)
  }

  offend (reason) {
    this.offences.push(reason)
  }

  mayCost () {
    return this.mayVerify
  }

  hello () {}
  flush () {}
  check () {}
  close () {}
}

// Both ends of an encrypted stream that never leaves this process.
export function streams (t) {
  const [left, right] = duplexPair()
  const ends = [new SecretStream(true, left), new SecretStream(false, right)]
  t.after(() => ends.forEach((end) => end.destroy()))
  for (const end of ends) end.on('error', () => {})
  return ends
}

// Connects two gossips. Answers each one's peer.
export function connect (t, one, other, [keyOfOne, keyOfOther] = ['one', 'other']) {
  const [left, right] = streams(t)
  return [one.gossip.addConnection(left, keyOfOther), other.gossip.addConnection(right, keyOfOne)]
}
