// What is known on one topic: the newest message of each subject. A subject is a worker, or one command.

export const MAX_SUBJECTS = 65_536

export class TopicState {
  constructor ({ name, number, key, kind, expiry }) {
    this.name = name
    this.number = number
    this.key = key
    this.id = key.toString('latin1', 0, 8)
    this.kind = kind
    this.expiry = expiry
    this.entries = new Map()
    this.orders = new Map()
  }

  isNewer (subject, boot, sequence) {
    const known = this.orders.get(subject)
    return known === undefined || boot > known.boot || (boot === known.boot && sequence > known.sequence)
  }

  // Keeps a message that is newer than what is known. Answers the entry, or null where it is not, or has run out.
  // `isNews` is set where others should hear of it at once: a subject that comes, goes or changes its state.
  accept (read, envelope, age, hops, now) {
    const { subject, boot, sequence, state } = read
    if (!this.isNewer(subject, boot, sequence)) return null
    if (this.orders.size >= MAX_SUBJECTS && !this.orders.has(subject)) return null
    const life = Math.min(this.expiry, read.life)
    if (age >= life) return null
    const former = this.entries.get(subject)
    const { version, pubKey, nonce, issuedAt } = read
    this.orders.set(subject, { boot, sequence, pubKey, nonce, issuedAt, wasContested: false })
    const entry = {
      version,
      subject,
      name: subject,
      boot,
      sequence,
      state,
      envelope,
      hops,
      bornAt: now - age,
      endsAt: now - age + life,
      isNews: former === undefined || former.boot !== boot || former.state !== state,
    }
    this.entries.set(subject, entry)
    return entry
  }

  // Whether a message that is not newer shows that two processes use one key: one alone gives each message a
  // number of its own, and makes those with greater numbers later. Answers that once for each newer message.
  isContested (read) {
    const known = this.orders.get(read.subject)
    if (known === undefined || known.boot !== read.boot || known.wasContested) return false
    const isOther = read.sequence === known.sequence && read.nonce !== known.nonce
    return isOther || (read.sequence < known.sequence && read.issuedAt > known.issuedAt)
  }

  // What shows that is passed on like news, and kept nowhere.
  contest (read, envelope, age, hops, now) {
    this.orders.get(read.subject).wasContested = true
    const { version, subject, boot, sequence, state } = read
    const bornAt = now - age
    const endsAt = bornAt + this.expiry
    // By another name than the newest message of the worker, whose place it must not take.
    return { version, subject, name: `${subject}/contested`, boot, sequence, state, envelope, hops, bornAt, endsAt, isNews: true }
  }

  // Forgets what has run out. Orders of workers stay: they keep old messages out.
  expire (now) {
    for (const [subject, entry] of this.entries) {
      if (entry.endsAt <= now) {
        this.entries.delete(subject)
        if (entry.state === 'command') this.orders.delete(subject)
      }
    }
  }

  // Forgets everything of keys that are trusted no longer.
  forget (isTrusted) {
    for (const [subject, order] of this.orders) {
      if (!isTrusted(order.pubKey)) {
        this.orders.delete(subject)
        this.entries.delete(subject)
      }
    }
  }
}
