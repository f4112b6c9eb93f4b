import { h, count } from './dom.js'

export const hues = 24

/** planes reads the assignments of a result, base64 of [layers, heads, tokens] in 16 bits, one head at a time: a page has hundreds. */
export function planes(text, tokens) {
  return (at) => {
    const from = 2 * tokens * at, to = from + 2 * tokens // bytes
    const raw = atob(text.slice(4 * Math.floor(from / 3), 4 * Math.ceil(to / 3)))
    const out = new Uint16Array(tokens), skip = from % 3
    for (let i = 0; i < tokens; i++) out[i] = raw.charCodeAt(skip + 2 * i) | (raw.charCodeAt(skip + 2 * i + 1) << 8)
    return out
  }
}

export const dropped = 65535

/** chunksOf cuts tokens where the compressor does: at a break from min tokens on, at max at the latest. */
export function chunksOf(tokens, breaks, min = 64, max = 96) {
  const ends = new Set(breaks)
  const out = []
  let from = 0
  for (let i = 0; i < tokens; i++) {
    const n = i - from + 1
    if ((n >= min && ends.has(i)) || n >= max || i === tokens - 1) {
      out.push([from, i + 1])
      from = i + 1
    }
  }
  return out
}

/** A page with more tokens shows those as text that are out of sight: a thousand elements cost more than all that is computed. */
const many = 2000

/**
 * Strip shows a page's tokens: those of one core share a colour, a token that stayed alone is plain, a token that was dropped is struck
 * out. Of a long page only the chunks in sight are elements and are painted. onPick(from, to) is told when somebody chooses a range with
 * click and shift-click (or Enter and Shift+Enter).
 */
export class Strip {
  constructor({ words, ids, breaks, tokens, redacted, min, max, onPick, onHover }) {
    this.n = tokens
    this.onPick = onPick
    this.onHover = onHover || (() => {})
    this.words = Array.from({ length: tokens }, (_, i) => {
      const word = redacted ? '•' : words?.[i] || (ids?.[i] !== undefined ? `·${ids[i]}` : '•')
      return word.replace(/\n/g, '⏎').replace(/\t/g, '⇥') || '·'
    })
    this.spans = new Array(tokens) // of chunks that have been in sight
    this.chunkAt = new Array(tokens)
    this.sizes = new Uint32Array(dropped + 1) // of cores
    this.lit = []
    this.focused = 0
    this.protectedRanges = []
    this.turn = 0 // of painting
    this.box = h('div.tokens', { role: 'group', 'aria-label': `${count(tokens)} tokens; arrow keys move, Enter marks a range`, tabindex: '0' })
    if (tokens > many) this.box.classList.add('many') // what is not seen is not laid out
    if (redacted) this.box.classList.add('redacted')
    this.chunks = chunksOf(tokens, breaks || [], min, max).map(([from, to], c) => {
      const run = h('span.run', {}, this.words.slice(from, to).join(''))
      const chunk = { from, to, run, seen: tokens <= many, painted: -1, box: h('div.chunk', { 'data-chunk': String(c) }, run) }
      this.chunkAt.fill(chunk, from, to)
      return chunk
    })
    this.box.append(...this.chunks.map((c) => c.box))
    if (tokens > many) {
      this.observer = new IntersectionObserver((seen) => {
        for (const e of seen) {
          const chunk = this.chunks[Number(e.target.dataset.chunk)]
          chunk.seen = e.isIntersecting
          if (chunk.seen) this.#draw(chunk)
        }
      }, { root: this.box, rootMargin: '120px 0px' })
      for (const c of this.chunks) this.observer.observe(c.box)
    }
    this.box.addEventListener('mouseover', (e) => this.#hover(e.target))
    this.box.addEventListener('mouseleave', () => this.#light(-1))
    this.box.addEventListener('click', (e) => this.#click(Number(e.target.dataset?.i ?? NaN), e.shiftKey))
    this.box.addEventListener('mousedown', (e) => e.shiftKey && e.preventDefault()) // a range of tokens, not of text
    this.box.addEventListener('keydown', (e) => this.#key(e))
  }

  /** paint shows one head's assignment, core of each token, and which tokens are protected. */
  paint(assign, protectedRanges = this.protectedRanges) {
    this.assign = assign
    this.protectedRanges = protectedRanges
    this.sizes.fill(0)
    if (assign) for (let i = 0; i < this.n; i++) this.sizes[assign[i]]++
    this.#light(-1)
    this.turn++
    for (const c of this.chunks) if (c.seen) this.#draw(c)
  }

  stop() {
    this.observer?.disconnect()
  }

  /** open makes a chunk's tokens elements. */
  #open(c) {
    if (this.spans[c.from]) return
    for (let i = c.from; i < c.to; i++) {
      const s = document.createElement('span')
      s.textContent = this.words[i]
      s.dataset.i = String(i)
      this.spans[i] = s
    }
    c.run.replaceChildren(...this.spans.slice(c.from, c.to))
  }

  #draw(c) {
    if (c.painted === this.turn) return
    c.painted = this.turn
    this.#open(c)
    const kept = this.protectedRanges.filter((r) => r.from < c.to && r.to > c.from)
    for (let i = c.from; i < c.to; i++) {
      let name = 'alone'
      if (this.assign) {
        const core = this.assign[i]
        if (core === dropped) name = 'dropped'
        else if (this.sizes[core] > 1) name = `k${(core * 7) % hues}`
      }
      if (kept.some((r) => i >= r.from && i < r.to)) name += ' kept'
      if (i === this.from) name += ' from'
      if (this.spans[i].className !== name) this.spans[i].className = name
    }
  }

  #span(i) {
    this.#draw(this.chunkAt[i])
    return this.spans[i]
  }

  #hover(el) {
    const i = Number(el.dataset?.i ?? NaN)
    if (Number.isNaN(i)) return
    this.#light(i)
    this.onHover(this.describe(i))
  }

  /** light marks the tokens of a token's core, as far as they are in sight. */
  #light(i) {
    for (const s of this.lit) s.classList.remove('lit')
    this.lit = []
    if (i < 0 || !this.assign) return
    const core = this.assign[i]
    for (let k = 0; k < this.n; k++) if ((core === dropped ? k === i : this.assign[k] === core) && this.spans[k]) this.lit.push(this.spans[k])
    for (const s of this.lit) s.classList.add('lit')
  }

  describe(i) {
    if (!this.assign) return `token ${i}`
    const core = this.assign[i]
    if (core === dropped) return `token ${i} was dropped: no core stands for it`
    const n = this.sizes[core]
    return n > 1 ? `token ${i} is one of ${n} that became core ${core}` : `token ${i} stays as it is, as core ${core}`
  }

  #click(i, shift) {
    if (Number.isNaN(i)) return
    this.focused = i
    if (shift && this.from !== undefined && this.onPick) {
      this.onPick(Math.min(this.from, i), Math.max(this.from, i) + 1)
      this.#mark(undefined)
      return
    }
    this.#mark(i)
    this.onHover(`${this.describe(i)}. Shift-click another token to protect the range.`)
  }

  #mark(i) {
    if (this.from !== undefined) this.#span(this.from).classList.remove('from')
    this.from = i
    if (i !== undefined) this.#span(i).classList.add('from')
  }

  #key(e) {
    const step = { ArrowRight: 1, ArrowLeft: -1, ArrowDown: 16, ArrowUp: -16, Home: -this.n, End: this.n }[e.key]
    if (step !== undefined) {
      e.preventDefault()
      this.#span(this.focused).classList.remove('at')
      this.focused = Math.max(0, Math.min(this.n - 1, this.focused + step))
      this.#span(this.focused).classList.add('at')
      this.#span(this.focused).scrollIntoView({ block: 'nearest' })
      this.#light(this.focused)
      this.onHover(this.describe(this.focused))
    } else if (e.key === 'Enter' || e.key === ' ') {
      e.preventDefault()
      this.#click(this.focused, e.shiftKey)
    } else if (e.key === 'Escape') {
      this.#mark(undefined)
    }
  }
}

/** legend explains the strip's colours. */
export function legend() {
  return h('p.legend', {},
    h('span.sample', {}, h('span.k3', {}, 'one'), ' ', h('span.k3', {}, 'core')), 'tokens of one core share a colour',
    h('span.sample', {}, h('span.alone', {}, 'alone')), 'stays as it is',
    h('span.sample', {}, h('span.kept.alone', {}, 'kept')), 'protected',
    h('span.sample', {}, h('span.dropped', {}, 'gone')), 'dropped')
}
