import { h, put, api, bytes, count, percent, fixed, ago, stat, table, meter, toneOf, pill, failure } from './dom.js'
import { history } from './charts.js'

/** totals sums tenants up. */
function totals(tenants) {
  const sum = { requests: 0, requestsFailed: 0, pages: 0, pagesCompressed: 0, pagesRefused: 0, tokens: 0, cores: 0, bytesIn: 0, bytesOut: 0, pagesMeasured: 0, attentionErrorSum: 0 }
  for (const t of tenants) for (const k of Object.keys(sum)) sum[k] += t[k]
  return sum
}

/** verifiedCard is the share of answers that compression has changed, of those that were asked again exactly. */
function verifiedCard(all) {
  const samples = all.reduce((n, t) => n + t.samples, 0), changed = all.reduce((n, t) => n + t.changed, 0), control = all.reduce((n, t) => n + t.control, 0)
  if (!samples) return null
  const back = all.filter((t) => t.steppedBack).length
  return stat('Answers changed', percent(changed / samples), `${count(changed)} of ${count(samples)} verified; ${count(control)} change without compression${back ? `; ${count(back)} stepped back` : ''}`, back ? 'poor' : changed <= control ? 'good' : 'fair')
}

/** verified is a row for each tenant and profile whose answers are verified. */
export function verified(all) {
  if (!all.length) return null
  const interval = (i) => `${percent(i.value)} (${percent(i.low)} to ${percent(i.high)})`
  return h('section.card#verified', {}, h('h2', {}, 'Verified answers'), h('p.muted', {}, 'A sample of requests is asked three times: on cores, exactly, and exactly again. In brackets: 95 % confidence.'),
    table('Verified answers', [
      { name: 'Tenant', cell: (t) => t.tenant }, { name: 'Profile', cell: (t) => t.profile }, { name: 'Samples', num: true, cell: (t) => count(t.samples) },
      { name: 'Changed', num: true, cell: (t) => interval(t.share) }, { name: 'Without compression', num: true, cell: (t) => interval(t.noise) },
      { name: 'May change', num: true, cell: (t) => (t.maxChanged ? percent(t.maxChanged) : 'only reports') }, { name: 'State', cell: (t) => (t.steppedBack ? [pill('stepped back', 'poor'), ' ', t.why] : pill('in force', 'good')) },
    ], all, ''))
}

export function cards(s, checked = []) {
  const saved = s.bytesIn - s.bytesOut, error = s.pagesMeasured ? s.attentionErrorSum / s.pagesMeasured : NaN
  return h('dl.stats', {},
    stat('KV bytes saved', bytes(Math.max(0, saved)), s.bytesIn ? `${percent(s.bytesOut / s.bytesIn)} of ${bytes(s.bytesIn)} kept` : 'no page yet', 'lead'),
    stat('Slots saved', count(Math.max(0, s.tokens - s.cores)), s.tokens ? `${percent(s.cores / s.tokens)} of ${count(s.tokens)} tokens kept, per layer and head` : undefined),
    stat('Attention error', fixed(error), s.pagesMeasured ? `mean of ${count(s.pagesMeasured)} pages that brought queries` : 'no page brought queries', Number.isFinite(error) ? toneOf(error) : undefined),
    stat('Pages', count(s.pages), `${count(s.pagesCompressed)} compressed, ${count(s.pagesRefused)} refused`, s.pagesRefused ? 'fair' : undefined),
    stat('Requests', count(s.requests), s.requests ? `${count(s.requestsFailed)} failed` : 'none through the proxy'),
    verifiedCard(checked))
}

/** series makes the history's columns. */
export function seriesOf(points) {
  const step = 10
  const times = [], read = [], kept = [], error = []
  let last
  for (const p of points) {
    if (last !== undefined && p.at - last > step) {
      times.push(last + step)
      read.push(0)
      kept.push(0)
      error.push(null)
      if (p.at - last > 2 * step) {
        times.push(p.at - step)
        read.push(0)
        kept.push(0)
        error.push(null)
      }
    }
    times.push(p.at)
    read.push(p.bytesIn)
    kept.push(p.bytesOut)
    error.push(p.pagesMeasured ? p.attentionErrorSum / p.pagesMeasured : null)
    last = p.at
  }
  return { times, read, kept, error }
}

export function charts(points, beside) {
  const s = seriesOf(points)
  const traffic = history('Bytes of pages in and out, each ten seconds of the last hour', s.times, [
    { name: 'bytes in', values: s.read, colour: '--m5', fill: true }, { name: 'bytes kept', values: s.kept, colour: '--m0', fill: true }], { format: bytes })
  const loss = history('Mean attention error, each ten seconds of the last hour', s.times, [{ name: 'attention error', values: s.error, colour: '--m1' }], { format: (v) => fixed(v, 2) })
  return {
    box: h('div.two', {}, h('section.card', {}, h('h2', {}, 'Bytes'), traffic.box), h('section.card', {}, h('h2', {}, 'Loss'), loss.box), beside),
    update(next) {
      const n = seriesOf(next)
      traffic.update(n.times, [n.read, n.kept])
      loss.update(n.times, [n.error])
    },
    stop() {
      traffic.stop()
      loss.stop()
    },
  }
}

function readiness(o) {
  return h('section.card.ready', {},
    h('h2', {}, o.ready.status === 'ready' ? 'Ready' : 'Not ready'),
    h('ul.checks', {}, o.ready.checks.map((c) => h('li', {}, h(`span.dot.${c.ok ? 'good' : 'poor'}`, { 'aria-hidden': 'true' }), h('strong', {}, c.name), h('span', {}, c.ok ? 'ok' : c.error)))),
    o.notes.length ? h('details', { open: o.notes.length < 4 }, h('summary', {}, `${o.notes.length} to look at`), h('ul.notes', {}, o.notes.map((n) => h('li', {}, n)))) : h('p.muted', {}, 'Nothing is degraded.'))
}

const list = (m) => {
  const all = Object.entries(m || {}).sort((a, b) => b[1] - a[1])
  return all.length ? all.slice(0, 3).map(([k, n]) => h('span.tag', {}, `${k} `, h('b', {}, count(n)))) : '–'
}

function tenants(o) {
  return table('Tenants', [
    { name: 'Tenant', cell: (t) => h('a', { href: `#/tenant/${encodeURIComponent(t.tenant)}` }, t.tenant) },
    { name: 'Requests', num: true, cell: (t) => count(t.requests) },
    { name: 'Pages', num: true, cell: (t) => count(t.pages) },
    { name: 'Tokens kept', cell: (t) => (t.tokens ? [meter(t.cores / t.tokens), ' ', percent(t.cores / t.tokens, 0)] : '–') },
    { name: 'Bytes saved', num: true, cell: (t) => bytes(Math.max(0, t.bytesIn - t.bytesOut)) },
    { name: 'Attention error', num: true, cell: (t) => (t.pagesMeasured ? pill(fixed(t.attentionErrorSum / t.pagesMeasured), toneOf(t.attentionErrorSum / t.pagesMeasured)) : '–') },
    { name: 'Gate', cell: (t) => list(t.gate) },
    { name: 'Errors', cell: (t) => list(t.errors) },
    { name: 'Last', cell: (t) => ago(t.last, Date.parse(o.now)) },
  ], o.tenants, 'No page and no request has come yet. Send one: semproxy prove, or docs/examples/send_page.py.')
}

/** overview is the first view, live. */
export function overview(main, every) {
  const top = h('div'), middle = h('div'), ready = h('div'), bottom = h('section.card'), checked = h('div')
  put(main, h('h1', {}, 'Overview'), top, middle, bottom, checked)
  let drawn
  const stop = every(2000, async (signal) => {
    const o = await api('overview', { signal })
    document.dispatchEvent(new CustomEvent('overview', { detail: o }))
    put(top, cards(totals(o.tenants), o.verified))
    put(ready, readiness(o))
    if (!drawn) {
      drawn = charts(o.history, ready)
      put(middle, drawn.box)
    } else drawn.update(o.history)
    put(bottom, h('h2', {}, 'Tenants'), tenants(o))
    put(checked, verified(o.verified))
  }, (e) => put(top, failure(e)))
  return () => {
    stop()
    drawn?.stop()
  }
}
