// What one peer may cost.

// Lets through `rate` a second, and `burst` at once.
export class Allowance {
  constructor (rate, burst, now) {
    this.rate = rate
    this.burst = burst
    this.left = burst
    this.at = now
  }

  take (amount, now) {
    this.left = Math.min(this.burst, this.left + ((now - this.at) / 1000) * this.rate)
    this.at = now
    if (this.left < amount) return false
    this.left -= amount
    return true
  }
}

// Remembers a word about what was seen lately, in two generations, so that it never grows past twice its size.
export class SeenLately {
  constructor (most) {
    this.most = most
    this.young = new Map()
    this.old = new Map()
  }

  get (key) {
    return this.young.get(key) ?? this.old.get(key)
  }

  set (key, word) {
    this.young.set(key, word)
    if (this.young.size >= this.most) this.turn()
  }

  turn () {
    this.old = this.young
    this.young = new Map()
  }
}
