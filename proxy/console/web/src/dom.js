// What every view uses: elements, numbers for people, and the API.

/** h('div.card#x', {on..., attributes}, children...) makes an element. */
export function h(tag, attributes, ...children) {
  const [name, ...rest] = tag.split(/(?=[.#])/)
  const el = document.createElement(name || 'div')
  for (const part of rest) {
    if (part[0] === '.') el.classList.add(part.slice(1))
    else el.id = part.slice(1)
  }
  for (const [key, value] of Object.entries(attributes || {})) {
    if (value === undefined || value === null || value === false) continue
    if (key.startsWith('on')) el.addEventListener(key.slice(2), value)
    else if (key === 'style') for (const [k, v] of Object.entries(value)) el.style.setProperty(k, v)
    else if (key === 'value' || key === 'checked' || key === 'selected' || key === 'disabled') el[key] = value
    else el.setAttribute(key, value === true ? '' : value)
  }
  append(el, children)
  return el
}

function append(el, children) {
  for (const c of children.flat(Infinity)) {
    if (c === undefined || c === null || c === false) continue
    el.append(c instanceof Node ? c : String(c))
  }
}

/** put replaces what an element holds. */
export function put(el, ...children) {
  el.replaceChildren()
  append(el, children)
  return el
}

const group = new Intl.NumberFormat('en')
export const count = (n) => group.format(Math.round(n))
export const percent = (x, digits = 1) => (Number.isFinite(x) ? `${(100 * x).toFixed(digits)} %` : '–')
export const fixed = (x, digits = 3) => (Number.isFinite(x) ? x.toFixed(digits) : '–')

export function bytes(n) {
  if (!Number.isFinite(n)) return '–'
  const units = ['B', 'KiB', 'MiB', 'GiB', 'TiB']
  let i = 0
  while (Math.abs(n) >= 1024 && i < units.length - 1) {
    n /= 1024
    i++
  }
  return `${i === 0 ? n : n.toFixed(n < 10 ? 2 : 1)} ${units[i]}`
}

export function ms(x) {
  if (!Number.isFinite(x)) return '–'
  if (x >= 1000) return `${(x / 1000).toFixed(2)} s`
  return x >= 1 ? `${x.toFixed(1)} ms` : `${(1000 * x).toFixed(0)} µs`
}

export function ago(text, now = Date.now()) {
  const s = Math.max(0, (now - Date.parse(text)) / 1000)
  if (!(s < 1e9)) return 'never'
  if (s < 60) return `${Math.round(s)} s ago`
  if (s < 3600) return `${Math.round(s / 60)} min ago`
  return s < 86400 ? `${Math.round(s / 3600)} h ago` : `${Math.round(s / 86400)} d ago`
}

const key = 'semproxy.token'
export const token = {
  get: () => sessionStorage.getItem(key) || '',
  set: (t) => (t ? sessionStorage.setItem(key, t) : sessionStorage.removeItem(key)),
}

/** ApiError carries the code and the sentence of the API. */
export class ApiError extends Error {
  constructor(status, code, message, problems) {
    super(message)
    this.status = status
    this.code = code
    this.problems = problems || []
  }
}

/** api asks the admin API and returns its JSON. */
export async function api(path, { method = 'GET', body, type = 'application/json', signal } = {}) {
  const headers = {}
  if (token.get()) headers.Authorization = `Bearer ${token.get()}`
  if (body !== undefined) headers['Content-Type'] = type
  const send = body === undefined || typeof body === 'string' ? body : JSON.stringify(body)
  let answer
  try {
    answer = await fetch(`../api/v1/${path}`, { method, headers, body: send, signal, cache: 'no-store' })
  } catch (e) {
    if (e.name === 'AbortError') throw e
    throw new ApiError(0, 'unreachable', 'The sidecar does not answer.')
  }
  let value
  try {
    value = await answer.json()
  } catch {
    throw new ApiError(answer.status, 'no_json', `The answer (${answer.status}) is no JSON.`)
  }
  if (!answer.ok) throw new ApiError(answer.status, value?.error?.code || 'unknown', value?.error?.message || `status ${answer.status}`, value?.error?.problems)
  return value
}

/** announce tells screen readers what has changed. */
export function announce(text) {
  const el = document.getElementById('live')
  if (el) el.textContent = text
}

/** stat is a figure with its name. */
export function stat(label, value, note, tone) {
  return h(`div.stat${tone ? '.' + tone : ''}`, {}, h('dt', {}, label), h('dd', {}, value), note ? h('dd.note', {}, note) : null)
}

/** table draws rows; each column is {name, cell, num}. */
export function table(caption, columns, rows, empty) {
  if (!rows.length) return h('p.empty', {}, empty)
  return h('div.scroll', { tabindex: '0', role: 'region', 'aria-label': caption },
    h('table', {},
      h('caption.hidden', {}, caption),
      h('thead', {}, h('tr', {}, columns.map((c) => h(c.num ? 'th.num' : 'th', { scope: 'col' }, c.name)))),
      h('tbody', {}, rows.map((r) => h('tr', {}, columns.map((c, i) => {
        const cell = h(c.num ? 'td.num' : 'td', { 'data-name': c.name }, c.cell(r))
        if (i === 0) cell.classList.add('first')
        return cell
      }))))))
}

/** meter is a bar of a share from 0 to 1. */
export function meter(share, tone = '') {
  const s = Math.max(0, Math.min(1, share || 0))
  return h(`span.meter${tone ? '.' + tone : ''}`, { 'aria-hidden': 'true' }, h('span', { style: { width: `${(100 * s).toFixed(1)}%` } }))
}

/** tone of an attention error. */
export const toneOf = (e) => (e <= 0.15 ? 'good' : e <= 0.3 ? 'fair' : 'poor')

export const pill = (text, tone) => h(`span.pill${tone ? '.' + tone : ''}`, {}, text)

export function failure(e) {
  return h('div.alert', { role: 'alert' }, h('strong', {}, e.message), e.code ? h('code', {}, e.code) : null,
    e.problems?.length > 1 ? h('ul', {}, e.problems.map((p) => h('li', {}, p))) : null)
}
