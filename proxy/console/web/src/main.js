import 'uplot/dist/uPlot.min.css'
import './style.css'
import { h, put, api, token, failure, pill } from './dom.js'
import { overview } from './overview.js'
import { tenant, lists } from './tenant.js'
import { page, request } from './page.js'
import { studio } from './studio.js'

const main = document.getElementById('main')
let stop = () => {}

/** every runs f now and then again so many milliseconds after it has ended, while the page is seen. */
function every(wait, f, fail) {
  const controller = new AbortController()
  let timer, over = false
  async function turn() {
    if (over) return
    if (!document.hidden) {
      try {
        await f(controller.signal)
      } catch (e) {
        if (e.name === 'AbortError' || over) return
        if (e.status === 401) return login(e)
        fail(e)
        status(undefined)
      }
    }
    timer = setTimeout(turn, wait)
  }
  turn()
  return () => {
    over = true
    clearTimeout(timer)
    controller.abort()
  }
}

function status(o) {
  const ready = o?.ready.status === 'ready'
  put(document.getElementById('status'), o ? pill(ready ? (o.notes.length ? 'ready, see notes' : 'ready') : 'not ready', ready ? (o.notes.length ? 'fair' : 'good') : 'poor') : pill('no answer', 'poor'),
    o?.version?.version ? h('span.muted.version', {}, o.version.version) : null)
}
document.addEventListener('overview', (e) => status(e.detail))

function login(e) {
  stop()
  stop = () => {}
  const field = h('input#token', { type: 'password', autocomplete: 'off', required: true })
  put(main, h('form.card.login', { onsubmit: (x) => {
    x.preventDefault()
    token.set(field.value.trim())
    route()
  } }, h('h1', {}, 'Token'), h('p', {}, 'The admin API wants the token of ', h('code', {}, 'admin.tokenFile'), '. It stays in this tab.'),
  h('label', { for: 'token' }, 'token'), field, h('div.bar-row', {}, h('button.primary', { type: 'submit' }, 'Open')), token.get() ? h('p.alert', { role: 'alert' }, e.message) : null))
  field.focus()
}

async function route() {
  stop()
  stop = () => {}
  const [, view = '', arg = ''] = location.hash.split('/')
  const name = decodeURIComponent(arg)
  for (const a of document.querySelectorAll('nav a')) {
    const own = a.getAttribute('href').split('/')[1]
    if (own === (view === 'tenant' ? '' : view === 'page' ? 'pages' : view === 'request' ? 'requests' : view)) a.setAttribute('aria-current', 'page')
    else a.removeAttribute('aria-current')
  }
  main.removeAttribute('data-busy')
  put(main)
  const turn = location.hash
  try {
    const end = await {
      '': () => overview(main, every), tenant: () => tenant(main, every, name), pages: () => lists(main, every, 'pages'), requests: () => lists(main, every, 'requests'),
      page: () => page(main, name), request: () => request(main, name), studio: () => studio(main, name),
    }[view]?.()
    if (turn !== location.hash) return end?.()
    if (!end) put(main, h('h1', {}, 'No such view'), h('p', {}, h('a', { href: '#/' }, 'Overview')))
    stop = end || stop
    if (['page', 'request', 'studio'].includes(view)) api('overview').then(status, () => {})
  } catch (e) {
    if (e.status === 401) return login(e)
    put(main, failure(e), h('p', {}, h('a', { href: '#/' }, 'Overview')))
  }
}

const theme = document.getElementById('theme')
const modes = ['auto', 'light', 'dark']
function setTheme(mode) {
  document.documentElement.dataset.theme = mode
  theme.textContent = { auto: 'Auto', light: 'Light', dark: 'Dark' }[mode]
  theme.setAttribute('aria-label', `colours: ${mode}`)
  localStorage.setItem('semproxy.theme', mode)
}
theme.addEventListener('click', () => {
  setTheme(modes[(modes.indexOf(document.documentElement.dataset.theme) + 1) % modes.length])
  route()
})
setTheme(modes.includes(localStorage.getItem('semproxy.theme')) ? localStorage.getItem('semproxy.theme') : 'auto')

addEventListener('hashchange', () => {
  route()
  document.getElementById('main').focus({ preventScroll: true })
})
route()
