import { h, put, api, bytes, count, percent, fixed, ago, ms, table, toneOf, pill, failure, meter } from './dom.js'
import { cards, charts } from './overview.js'

export function pagesTable(pages, now) {
  return table('The last pages', [
    { name: 'Page', cell: (p) => h('a', { href: `#/page/${p.id}` }, p.id) },
    { name: 'Tenant', cell: (p) => h('a', { href: `#/tenant/${encodeURIComponent(p.tenant)}` }, p.tenant) },
    { name: 'Outcome', cell: (p) => (p.error ? pill(p.error, 'poor') : pill(p.outcome, p.outcome === 'exact' ? '' : 'good')) },
    { name: 'Profile', cell: (p) => p.profile || '–' },
    { name: 'Tokens', num: true, cell: (p) => count(p.tokens || 0) },
    { name: 'Kept', cell: (p) => (p.tokens ? [meter(p.ratio), ' ', percent(p.ratio, 0)] : '–') },
    { name: 'Bytes', num: true, cell: (p) => (p.bytesIn ? `${bytes(p.bytesIn)} → ${bytes(p.bytesOut || 0)}` : '–') },
    { name: 'Error', num: true, cell: (p) => (p.measured && !p.error ? pill(fixed(p.attentionError || 0), toneOf(p.attentionError || 0)) : '–') },
    { name: 'Time', num: true, cell: (p) => ms(p.totalMs) },
    { name: 'When', cell: (p) => [ago(p.at, now), p.recorded ? [' ', pill('recorded')] : null] },
  ], pages, 'No page has come yet.')
}

export function requestsTable(requests, now) {
  return table('The last requests', [
    { name: 'Request', cell: (r) => h('a', { href: `#/request/${encodeURIComponent(r.id)}` }, r.id.slice(0, 13)) },
    { name: 'Tenant', cell: (r) => r.tenant || '–' },
    { name: 'Route', cell: (r) => r.route },
    { name: 'Model', cell: (r) => r.model || '–' },
    { name: 'Status', cell: (r) => (r.done ? pill(String(r.status || '–'), r.status >= 400 ? 'poor' : 'good') : pill('running')) },
    { name: 'Gate', cell: (r) => r.gate?.reason || '–' },
    { name: 'Prompt', num: true, cell: (r) => count(r.promptTokens || r.promptEstimate || 0) },
    { name: 'Pages', num: true, cell: (r) => count(r.pages.length) },
    { name: 'Time', num: true, cell: (r) => ms(r.timings.totalMs) },
    { name: 'When', cell: (r) => ago(r.start, now) },
  ], requests, 'No request has come through the proxy.')
}

/** profileText writes a profile's settings on one line. */
export function profileText(p) {
  if (!p) return '–'
  const parts = [p.method]
  if (p.method !== 'none') {
    if (p.threshold !== undefined) parts.push(`threshold ${p.threshold}`)
    else parts.push(`ratio ${p.ratio}`)
    for (const k of ['budget', 'clusters']) if (p[k]) parts.push(p[k])
    if (p.fp8) parts.push('fp8')
    if (p.guard?.maxFactsLost) parts.push(`guard ${p.guard.maxFactsLost} of facts ${p.guard.onViolation}`)
    if (p.guard?.maxAttentionError) parts.push(`guard ${p.guard.maxAttentionError} ${p.guard.onViolation}`)
    if (p.protect) parts.push(`sinks ${p.protect.sinks}, recent ${p.protect.recent}`)
  }
  return parts.join(' · ')
}

function rules(view, profiles, pages) {
  const hits = {}
  for (const p of pages) hits[p.rule] = (hits[p.rule] || 0) + 1
  const last = pages[0]?.rule
  return h('ol.rules', {}, view.rules.map((r) => h(`li${r.rule === last ? '.on' : ''}`, {},
    h('div.rule', {}, h('strong', {}, r.match), ' → ', h('code', {}, r.profile), r.rule === last ? [' ', pill('the last page matched this', 'good')] : null),
    h('div.muted', {}, [r.name ? `“${r.name}”, ` : '', r.source || r.rule, hits[r.rule] ? `, ${count(hits[r.rule])} of the last ${count(pages.length)} pages` : ''].join('')),
    h('div.muted', {}, profileText(profiles[r.profile])))))
}

/** tenant shows one tenant, live. */
export function tenant(main, every, name) {
  const top = h('div'), middle = h('div'), policy = h('section.card'), pages = h('section.card'), requests = h('section.card')
  put(main, h('p.crumbs', {}, h('a', { href: '#/' }, 'Overview'), ' / ', name), h('h1', {}, name), top, middle, policy, pages, requests)
  let drawn
  const stop = every(2000, async (signal) => {
    const q = encodeURIComponent(name)
    const [o, all, doc, recent] = await Promise.all([api(`overview?tenant=${q}`, { signal }), api('tenants', { signal }), api('policies', { signal }), api(`pages?tenant=${q}&limit=100`, { signal })])
    document.dispatchEvent(new CustomEvent('overview', { detail: o }))
    const sums = o.tenants.find((t) => t.tenant === name)
    const view = all.find((t) => t.tenant === name) || all.find((t) => t.tenant === 'unknown')
    put(top, sums ? cards(sums) : h('p.empty', {}, 'Nothing has come from this tenant yet.'))
    if (!drawn) {
      drawn = charts(o.history)
      put(middle, drawn.box)
    } else drawn.update(o.history)
    put(policy, h('h2', {}, 'Policy in force'), view ? rules(view, doc.profiles, recent.pages) : h('p.empty', {}, 'The policy names neither this tenant nor unknown: it is denied.'),
      view && Object.keys(view.limits).length ? h('p', {}, 'Limits: ', Object.entries(view.limits).map(([k, v]) => h('span.tag', {}, `${k} `, h('b', {}, k.endsWith('Bytes') ? bytes(Number(v)) || v : String(v))))) : null,
      view ? h('p.muted', {}, `Stored: ${count(view.objects)} objects, ${bytes(view.bytes)}. Requests now: ${view.active}, waiting ${view.waiting}.`) : null)
    put(pages, h('h2', {}, 'Pages'), pagesTable(recent.pages.slice(0, 20), Date.parse(o.now)))
    if (o.has.requests) {
      const r = await api(`requests?tenant=${q}&limit=20`, { signal })
      put(requests, h('h2', {}, 'Requests'), requestsTable(r.requests, Date.parse(o.now)))
    } else requests.hidden = true
  }, (e) => put(top, failure(e)))
  return () => {
    stop()
    drawn?.stop()
  }
}

/** lists shows the last pages or requests of all tenants, live. */
export function lists(main, every, what) {
  const box = h('section.card')
  put(main, h('h1', {}, what === 'pages' ? 'Pages' : 'Requests'), box)
  return every(2000, async (signal) => {
    const o = await api('overview', { signal })
    document.dispatchEvent(new CustomEvent('overview', { detail: o }))
    if (what === 'pages') put(box, pagesTable((await api('pages?limit=100', { signal })).pages, Date.parse(o.now)))
    else if (!o.has.requests) put(box, h('p.empty', {}, 'The proxy is off: set proxy.listen to see requests.'))
    else put(box, requestsTable((await api('requests?limit=100', { signal })).requests, Date.parse(o.now)))
  }, (e) => put(box, failure(e)))
}
