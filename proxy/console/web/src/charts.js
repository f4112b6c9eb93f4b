import uPlot from 'uplot'
import { h } from './dom.js'

const css = (name) => getComputedStyle(document.documentElement).getPropertyValue(name).trim()

/** axis in the page's colours. */
function axis(more) {
  return { stroke: css('--muted'), grid: { stroke: css('--line'), width: 1 }, ticks: { show: false }, font: '12px system-ui, sans-serif', labelFont: '12px system-ui, sans-serif', ...more }
}

/** fit draws a chart into a box and keeps its width. */
function fit(box, make, height) {
  let chart
  const draw = () => {
    const width = Math.max(240, box.clientWidth)
    if (chart && chart.width !== width) chart.setSize({ width, height })
    else if (!chart && box.isConnected) chart = make(width, height)
  }
  const observer = new ResizeObserver(draw)
  observer.observe(box)
  return {
    box,
    redraw(data) {
      if (chart) chart.setData(data)
    },
    remake() {
      chart?.destroy()
      chart = undefined
      draw()
    },
    stop() {
      observer.disconnect()
      chart?.destroy()
    },
  }
}

/** history draws series over time: [{name, values, colour, fill}]. */
export function history(title, times, series, { height = 170, format = (v) => v } = {}) {
  const box = h('div.chart', { role: 'img', 'aria-label': title })
  let data = [times, ...series.map((s) => s.values)]
  const chart = fit(box, (width) => new uPlot({
    width, height, cursor: { y: false }, legend: { live: true },
    scales: { x: { time: true, range: (_u, lo, hi) => [Math.min(lo ?? 0, (hi || 1) - 300), hi || 1] }, y: { range: (_u, lo, hi) => [Math.min(0, lo ?? 0), (hi || 1) * 1.1] } },
    axes: [axis({}), axis({ size: 64, values: (_u, vs) => vs.map(format) })],
    series: [{ label: 'time' }, ...series.map((s) => ({
      label: s.name, stroke: css(s.colour), width: 2, fill: s.fill ? `${css(s.colour)}26` : undefined, points: { show: times.length < 30, size: 5, fill: css(s.colour) },
      value: (_u, v) => (v === null || v === undefined ? '–' : format(v)), spanGaps: false,
    }))],
  }, data, box), height)
  return {
    ...chart,
    update(t, values) {
      data = [t, ...values]
      chart.redraw(data)
    },
  }
}

export const methodColours = {
  weighted: '--m0', semantic: '--m1', hybrid: '--m2', paper: '--m3', uniform: '--m4', window: '--m5', keynorm: '--m6', attention: '--m7',
}

/** curves draws the loss against the bytes kept, a line for each method; the one chosen stands out. */
export function curves(title, lines, chosen, { height = 300, what = 'attention error' } = {}) {
  const box = h('div.chart', { role: 'img', 'aria-label': title })
  const drawn = lines.filter((l) => l.points.length)
  const tables = drawn.map((l) => {
    const points = [...l.points].sort((a, b) => a.x - b.x)
    return [points.map((p) => p.x), points.map((p) => p.y)]
  })
  if (chosen) tables.push([[chosen.x], [chosen.y]])
  if (!tables.length) return { box, stop() {} }
  const data = uPlot.join(tables)
  const series = drawn.map((l) => {
    const own = l.name === chosen?.name
    return {
      label: l.name, stroke: css(methodColours[l.name] || '--m0'), width: own ? 3 : 1.5, dash: l.evicts ? [5, 4] : undefined, spanGaps: true,
      points: { show: true, size: own ? 7 : 5, fill: css(methodColours[l.name] || '--m0') }, value: (_u, v) => (v === null || v === undefined ? '–' : v.toFixed(3)),
    }
  })
  if (chosen) series.push({ label: 'now', stroke: css('--ink'), width: 0, points: { show: true, size: 13, width: 3, stroke: css('--ink'), fill: css('--surface') }, value: (_u, v) => (v === null || v === undefined ? '–' : v.toFixed(3)) })
  return fit(box, (width) => new uPlot({
    width, height, cursor: { points: { show: false } }, legend: { live: true },
    scales: { x: { time: false, range: (_u, lo, hi) => [Math.max(0, lo - 3), Math.min(110, hi + 3)] }, y: { range: (_u, _lo, hi) => [0, Math.min(1.2, (hi || 1) * 1.08)] } },
    axes: [axis({ label: 'bytes kept, % of the page', labelSize: 22, values: (_u, vs) => vs.map((v) => `${v} %`) }), axis({ label: what, labelSize: 20, size: 52 })],
    series: [{ label: 'bytes', value: (_u, v) => (v === null || v === undefined ? '–' : `${v.toFixed(1)} %`) }, ...series],
  }, data, box), height)
}

/** heat draws [rows][columns] of numbers as a picture; pick(row, column) is told of clicks. */
export function heat(title, rows, { top = 0.6, pick, rowName = 'layer', columnName = 'head' } = {}) {
  const columns = rows[0]?.length || 0
  const canvas = h('canvas.heat', { role: 'img', 'aria-label': title })
  const tip = h('output.tip', { 'aria-live': 'off' }, `hover a cell: ${rowName} and ${columnName}`)
  let chosen
  const cell = () => Math.max(6, Math.min(26, Math.floor((canvas.parentElement?.clientWidth || 320) / Math.max(columns, 1))))
  const tall = () => Math.max(6, Math.min(20, Math.floor(320 / Math.max(rows.length, 1))))
  function draw() {
    const w = cell(), t = tall(), scale = window.devicePixelRatio || 1
    canvas.width = columns * w * scale
    canvas.height = rows.length * t * scale
    canvas.style.width = `${columns * w}px`
    canvas.style.height = `${rows.length * t}px`
    const c = canvas.getContext('2d')
    c.scale(scale, scale)
    rows.forEach((row, y) => row.forEach((v, x) => {
      c.fillStyle = ramp(v / top)
      c.fillRect(x * w, y * t, w - 1, t - 1)
    }))
    if (chosen) {
      c.strokeStyle = css('--ink')
      c.lineWidth = 2
      c.strokeRect(chosen[1] * w + 1, chosen[0] * t + 1, w - 3, t - 3)
    }
  }
  const at = (e) => {
    const r = canvas.getBoundingClientRect()
    const x = Math.floor((e.clientX - r.left) / (r.width / columns)), y = Math.floor((e.clientY - r.top) / (r.height / rows.length))
    return x >= 0 && x < columns && y >= 0 && y < rows.length ? [y, x] : undefined
  }
  canvas.addEventListener('mousemove', (e) => {
    const p = at(e)
    if (p) tip.textContent = `${rowName} ${p[0]}, ${columnName} ${p[1]}: ${rows[p[0]][p[1]].toFixed(3)}`
  })
  canvas.addEventListener('click', (e) => {
    const p = at(e)
    if (p && pick) pick(...p)
  })
  const box = h('div.heatbox', {}, canvas, h('div.scale', { 'aria-hidden': 'true' }, h('span', {}, '0'), h('i'), h('span', {}, String(top))), tip)
  const observer = new ResizeObserver(draw)
  observer.observe(box)
  return {
    box, draw,
    choose(row, column) {
      chosen = [row, column]
      draw()
    },
    set(next) {
      rows = next
      draw()
    },
    stop: () => observer.disconnect(),
  }
}

const stops = [[0x1b, 0x9e, 0x8f], [0x8f, 0xc9, 0x6a], [0xf2, 0xd0, 0x4b], [0xee, 0x8a, 0x3a], [0xc9, 0x32, 0x4b]]

/** ramp is a colour from teal (0) to red (1). */
export function ramp(share) {
  const s = Math.max(0, Math.min(0.9999, Number.isFinite(share) ? share : 0)) * (stops.length - 1)
  const i = Math.floor(s), f = s - i
  return `rgb(${stops[i].map((v, k) => Math.round(v + f * (stops[i + 1][k] - v))).join(',')})`
}
