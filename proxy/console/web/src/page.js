import { h, put, api, bytes, count, percent, fixed, ms, stat, table, toneOf, pill, failure, announce } from './dom.js'
import { heat, ramp } from './charts.js'
import { Strip, planes, legend } from './tokens.js'
import { pagesTable, profileText } from './tenant.js'

/** timeline draws steps one after the other: [name, milliseconds]. */
export function timeline(title, steps, total) {
  const whole = Math.max(total || 0, steps.reduce((a, s) => a + (s[1] || 0), 0), 1e-9)
  let at = 0
  return h('ol.timeline', { 'aria-label': title }, steps.filter((s) => s[1] > 0).map(([name, t, tone]) => {
    const bar = h(`span.bar${tone ? '.' + tone : ''}`, { style: { left: `${(100 * at) / whole}%`, width: `${Math.max(0.4, (100 * t) / whole)}%` } })
    at += t
    return h('li', {}, h('span.name', {}, name), h('span.track', { 'aria-hidden': 'true' }, bar), h('span.num', {}, ms(t)))
  }))
}

function layersChart(layers) {
  if (!layers?.length) return null
  return h('section.card', {}, h('h2', {}, 'Loss and budget by layer'),
    h('p.muted', {}, 'Each bar is the share of tokens that a layer keeps; its colour is the layer’s attention error.'),
    h('ol.layers', {}, layers.map((l) => h('li', { title: `layer ${l.layer}: ${percent(l.ratio)} kept, error ${fixed(l.attentionError)}` },
      h('span.name', {}, String(l.layer)),
      h('span.track', { 'aria-hidden': 'true' }, h('span.bar', { style: { width: `${100 * Math.min(1, l.ratio)}%`, 'background-color': l.measured ? ramp(l.attentionError / 0.6) : 'var(--m0)' } })),
      h('span.num', {}, `${percent(l.ratio, 0)}${l.measured ? ` · ${fixed(l.attentionError, 2)}` : ''}`)))))
}

/** headView shows losses by layer and head beside the tokens of the one that is chosen. It is the studio's too. */
export function headView(first, tokens, { onPick, min, max, kept } = {}) {
  const note = h('output.tip', { 'aria-live': 'off' }, 'hover or move to a token')
  const strip = new Strip({ words: tokens.words, ids: tokens.ids, breaks: tokens.breaks, tokens: first.tokens, redacted: tokens.redacted, min, max, onPick, onHover: (t) => (note.textContent = t) })
  const layer = h('select', { 'aria-label': 'layer' }), head = h('select', { 'aria-label': 'KV head' })
  const lossBox = h('div'), slots = h('p.muted')
  let result, plane, at = { layer: typical(first), head: 0 }, map, measured, kind
  function show() {
    const t = performance.now()
    strip.paint(plane?.(at.layer * result.heads + at.head), kept)
    slots.textContent = `Layer ${at.layer}, KV head ${at.head}: ${count(result.slots[at.layer][at.head])} cores for ${count(result.tokens)} tokens.`
    map.choose(at.layer, measured ? at.head * per() : at.head)
    box.dataset.painted = (performance.now() - t).toFixed(1)
  }
  const per = () => Math.max(1, Math.round(result.queryHeads / result.heads)) // query heads of a KV head
  function choose(l, hd) {
    at = { layer: Math.min(l, result.layers - 1), head: Math.min(hd, result.heads - 1) }
    layer.value = String(at.layer)
    head.value = String(at.head)
    show()
  }
  layer.addEventListener('change', () => choose(Number(layer.value), at.head))
  head.addEventListener('change', () => choose(at.layer, Number(head.value)))
  function losses() {
    const rows = result.loss.length ? result.loss : result.slots.map((row) => row.map((n) => n / result.tokens))
    const next = result.loss.length ? 'loss' : result.outcome
    if (map && kind === next) {
      map.set(rows)
      lossBox.querySelector('details')?.replaceWith(lossTable(result))
      return
    }
    map?.stop()
    kind = next
    measured = kind === 'loss'
    if (measured) {
      map = heat('Attention error by layer and query head', rows, { pick: (l, q) => choose(l, Math.floor(q / per())), columnName: 'query head' })
      put(lossBox, h('h3', {}, 'Loss by layer and query head'), map.box, lossTable(result))
    } else {
      map = heat('Share of tokens kept by layer and KV head', rows, { top: 1, pick: choose, columnName: 'KV head' })
      put(lossBox, h('h3', {}, 'Tokens kept by layer and KV head'), h('p.muted', {}, result.outcome === 'exact' ? 'Exact: nothing is lost.' : 'The page brought no queries, so the loss is not measured.'), map.box)
    }
  }
  const box = h('div.headview', {}, h('div.side', {}, lossBox), h('div.text', {},
    h('div.bar-row', {}, h('h3', {}, 'Tokens and cores'), layer, head), slots, tokens.redacted ? h('p.muted', {}, 'The tenant’s policy does not let the console show what tokens say (record: text).') : null, legend(), strip.box, note))
  function update(next, nextKept) {
    result = next
    kept = nextKept ?? kept
    plane = next.assign ? planes(next.assign, next.tokens) : undefined
    at = { layer: Math.min(at.layer, next.layers - 1), head: Math.min(at.head, next.heads - 1) }
    losses()
    show()
  }
  put(layer, Array.from({ length: first.layers }, (_, i) => h('option', { value: String(i), selected: i === at.layer }, `layer ${i}`)))
  put(head, Array.from({ length: first.heads }, (_, i) => h('option', { value: String(i), selected: i === at.head }, `KV head ${i}`)))
  update(first)
  return {
    box, update,
    stop() {
      strip.stop()
      map.stop()
    },
  }
}

/** lossTable is made when it is opened. */
function lossTable(r) {
  const box = h('div.scroll', { tabindex: '0', role: 'region', 'aria-label': 'loss by layer and head' })
  const fill = () => put(box, h('table.small', {},
    h('thead', {}, h('tr', {}, h('th', { scope: 'col' }, 'layer'), r.loss[0].map((_, i) => h('th.num', { scope: 'col' }, `head ${i}`)))),
    h('tbody', {}, r.loss.map((row, i) => h('tr', {}, h('th', { scope: 'row' }, String(i)), row.map((v) => h('td.num', {}, v.toFixed(3))))))))
  return h('details', { ontoggle: (e) => e.target.open && !box.childElementCount && fill() }, h('summary', {}, 'as a table'), box)
}

/** typical is the layer that keeps nearest to the page's mean. */
function typical(r) {
  let best = 0, gap = Infinity
  r.slots.forEach((row, l) => {
    const g = Math.abs(row[0] / r.tokens - r.ratio)
    if (g < gap) [best, gap] = [l, g]
  })
  return best
}

/** profileOf is a page's profile in the words that a policy file takes. */
export function profileOf(p) {
  if (!p || p.method === 'none') return { method: 'none' }
  const out = { method: p.method }
  const clusters = ['weighted', 'semantic', 'hybrid', 'paper'].includes(p.method)
  if (p.threshold !== undefined) out.threshold = p.threshold
  else out.ratio = p.ratio
  if (clusters && p.threshold === undefined) {
    out.budget = p.budget
    out.exact = p.exact
  }
  if (clusters) {
    out.clusters = p.clusters
    out.chunk = p.chunk
  }
  if (p.fp8) out.fp8 = true
  if (p.protect) {
    out.protect = { sinks: p.protect.sinks }
    if (p.method !== 'window') out.protect.recent = p.protect.recent
    if (p.protect.spans) out.protect.spans = p.protect.spans
  }
  return out
}

/** page shows what happened to one page. */
export async function page(main, id) {
  put(main, h('p.muted', {}, 'Loading…'))
  const p = await api(`pages/${encodeURIComponent(id)}`)
  const facts = h('dl.stats', {},
    stat('Tokens → cores', p.tokens ? `${count(p.tokens)} → ${count(p.cores)}` : '–', p.tokens ? `${percent(p.ratio)} kept, mean per layer and head` : undefined, 'lead'),
    stat('Bytes', p.bytesIn ? `${bytes(p.bytesIn)} → ${bytes(p.bytesOut || 0)}` : '–', p.bytesOut ? `${percent(p.bytesOut / p.bytesIn)} of the page` : undefined),
    stat('Attention error', p.measured && !p.error ? fixed(p.attentionError || 0) : '–', p.measured ? `worst ${fixed(p.worstError || 0)} at layer/head ${p.worstHead || '–'}` : 'the page brought no queries', p.measured && !p.error ? toneOf(p.attentionError || 0) : undefined),
    stat('Guard', p.guard || '–', p.keySimilarity ? `key similarity ${fixed(p.keySimilarity)}` : undefined),
    stat('Time', ms(p.totalMs), p.device))
  const deep = h('section.card')
  put(main, h('p.crumbs', {}, h('a', { href: '#/' }, 'Overview'), ' / ', h('a', { href: `#/tenant/${encodeURIComponent(p.tenant)}` }, p.tenant), ' / ', p.id),
    h('h1', {}, `Page ${p.id} `, p.error ? pill(p.error, 'poor') : pill(p.outcome, 'good')), facts,
    h('section.card', {}, h('h2', {}, 'Why'), h('p', {}, p.reason || 'It was refused before anything was decided.'), p.rule ? h('p.muted', {}, `Rule ${p.rule}, profile ${p.profile}.`) : null,
      h('dl.ids', {}, [['sequence', p.sequence], ['model', p.model], ['trace', p.traceId], ['stored object', p.object]].filter((x) => x[1]).map(([k, v]) => [h('dt', {}, k), h('dd', {}, h('code', {}, v))]))),
    h('section.card', {}, h('h2', {}, 'Timeline'), timeline('Steps of the page', [['decide', p.decideMs], ['compress and measure', p.compressMs, 'lead'], ['store', p.storeMs], ['decode, wait, encode', Math.max(0, p.totalMs - p.decideMs - p.compressMs - p.storeMs)]], p.totalMs)),
    layersChart(p.perLayer), deep)
  if (!p.recorded) {
    put(deep, h('h2', {}, 'Tokens and heads'), h('p', {}, 'This page was not recorded. A tenant’s policy allows it with ', h('code', {}, 'record: pages'), ', or ', h('code', {}, 'record: text'), ' to see what tokens say.'))
    return () => {}
  }
  put(deep, h('h2', {}, 'Tokens and heads'), h('p.muted', {}, 'Compressing the recorded page again…'))
  const source = `page:${p.id}`
  const policies = await api('policies')
  try {
    const [tokens, result] = await Promise.all([api(`studio/tokens?source=${encodeURIComponent(source)}`), api('studio/run', { method: 'POST', body: { source, profile: profileOf(policies.profiles[p.profile]) } })])
    const view = headView(result, tokens)
    put(deep, h('div.bar-row', {}, h('h2', {}, 'Tokens and heads'), h('a.button', { href: `#/studio/${encodeURIComponent(source)}` }, 'Open in the studio')), view.box)
    announce(`page ${p.id} is shown`)
    return view.stop
  } catch (e) {
    put(deep, h('h2', {}, 'Tokens and heads'), failure(e))
    return () => {}
  }
}

/** request shows what happened to one request. */
export async function request(main, id) {
  put(main, h('p.muted', {}, 'Loading…'))
  const x = await api(`requests/${encodeURIComponent(id)}/explain`)
  const r = x.request, t = r.timings
  put(main, h('p.crumbs', {}, h('a', { href: '#/requests' }, 'Requests'), ' / ', r.id), h('h1', {}, 'Request ', r.done ? pill(String(r.status || '–'), r.status >= 400 ? 'poor' : 'good') : pill('running')),
    h('section.card', {}, h('h2', {}, 'What happened'), h('ul.story', {}, x.summary.map((s) => h('li', {}, s))),
      h('dl.ids', {}, [['id', r.id], ['tenant', r.tenant], ['route', `${r.method} ${r.route}`], ['model', r.model], ['trace', r.traceId], ['object', r.object]].filter((y) => y[1]).map(([k, v]) => [h('dt', {}, k), h('dd', {}, h('code', {}, v))]))),
    h('section.card', {}, h('h2', {}, 'Timeline'), timeline('Steps of the request', [['queue', t.queueMs], ['read body', t.bodyMs], ['decide', t.decideMs], ['engine until headers', t.headersMs, 'lead'], ['until the first token', Math.max(0, t.firstTokenMs - t.headersMs)], ['rest of the answer', Math.max(0, t.totalMs - Math.max(t.firstTokenMs, t.headersMs) - t.queueMs - t.bodyMs - t.decideMs)]], t.totalMs),
      t.perTokenMs ? h('p.muted', {}, `${ms(t.perTokenMs)} for each token of the answer.`) : null),
    h('section.card', {}, h('h2', {}, 'Decision'), r.decision ? h('p', {}, r.decision.reason) : h('p.empty', {}, 'Nothing was decided.'), r.decision ? h('p.muted', {}, profileText(r.decision.plan)) : null,
      r.gate ? h('p', {}, h('strong', {}, `Gate: ${r.gate.reason}. `), r.gate.why) : null,
      h('ol.rules', {}, x.rules.map((s) => h(`li${s.matched ? '.on' : ''}`, {}, h('strong', {}, s.rule), s.profile ? [' → ', h('code', {}, s.profile)] : null, h('div.muted', {}, s.why))))),
    r.layers?.length ? layersChart(r.layers) : null,
    h('section.card', {}, h('h2', {}, 'Pages'), r.pages.length ? table('Pages of the request', [
      { name: 'Outcome', cell: (p) => pill(p.error || p.outcome, p.error ? 'poor' : 'good') }, { name: 'Tokens', num: true, cell: (p) => count(p.tokens || 0) },
      { name: 'Kept', num: true, cell: (p) => percent(p.ratio, 0) }, { name: 'Bytes', num: true, cell: (p) => `${bytes(p.bytesIn || 0)} → ${bytes(p.bytesOut || 0)}` },
      { name: 'Error', num: true, cell: (p) => (p.measured ? fixed(p.attentionError || 0) : '–') }, { name: 'Time', num: true, cell: (p) => ms(p.totalMs) },
    ], r.pages, '') : h('p.empty', {}, 'None came from the engine.')))
  return () => {}
}

export { pagesTable }
