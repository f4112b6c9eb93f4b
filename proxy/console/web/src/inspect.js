// The page that `semproxy inspect --html` writes: one file with its data inside, which needs nothing else.
import 'uplot/dist/uPlot.min.css'
import './style.css'
import { h, put, bytes, count, percent, fixed, ms, stat, toneOf, table } from './dom.js'
import { headView } from './page.js'
import { curves } from './charts.js'

const data = JSON.parse(document.getElementById('data').textContent)
const main = document.getElementById('main')
const r = data.result
document.title = `semproxy inspect: ${data.title}`
put(main, h('h1', {}, data.title), h('p.muted', {}, data.subtitle),
  h('dl.stats', {},
    stat('Tokens → cores', `${count(r.tokens)} → ${count(r.ratio * r.tokens)}`, `${percent(r.ratio)} kept, mean of ${r.layers} layers × ${r.heads} heads`, 'lead'),
    stat('Bytes', `${bytes(r.bytesIn)} → ${bytes(r.bytesOut)}`, `${percent(r.bytesOut / r.bytesIn)} kept`),
    stat('Attention error', r.measured ? fixed(r.attentionError) : '–', r.measured ? `worst ${fixed(r.worstError)} at layer/head ${r.worstHead || '–'}` : 'the page brought no queries', r.measured ? toneOf(r.attentionError) : undefined),
    stat('Guard', r.guard.replace('_', ' ')), stat('Time', ms(r.ms), r.device)),
  h('section.card', {}, headView(r, data.tokens).box))
if (data.curves?.length) {
  const lines = data.curves.map((c) => ({ name: c.method, evicts: c.evicts, points: c.points.filter((p) => p.measured).map((p) => ({ x: 100 * p.bytes, y: p.attentionError })) }))
  const box = h('section.card', {}, h('h2', {}, 'Loss against bytes'))
  main.append(box)
  box.append(curves('Attention error against bytes kept', lines, { name: data.method, x: (100 * r.bytesOut) / r.bytesIn, y: r.attentionError }).box,
    h('details', {}, h('summary', {}, 'as a table'), table('Loss of every method', [{ name: 'Method', cell: (x) => x.method }, { name: 'Bytes', num: true, cell: (x) => percent(x.bytes) }, { name: 'Attention error', num: true, cell: (x) => fixed(x.attentionError) }], data.curves.flatMap((c) => c.points.map((p) => ({ ...p, method: c.method }))), '–')))
}
main.append(h('section.card', {}, h('h2', {}, 'The policy'), h('pre#yaml', { tabindex: '0' }, r.yaml)))
