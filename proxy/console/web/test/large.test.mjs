// How fast the console answers on a page of 8,000 tokens by 30 layers: the time from a key or click to the next picture, as the browser
// itself measures it (Event Timing, steps of 8 ms), and the longest task. Everything is real: the page is recorded by a sidecar.
import { test, before, after } from 'node:test'
import assert from 'node:assert/strict'
import { spawn, spawnSync } from 'node:child_process'
import { mkdtempSync, writeFileSync } from 'node:fs'
import { createServer } from 'node:net'
import { cpus, loadavg, tmpdir } from 'node:os'
import { join } from 'node:path'
import { chromium } from 'playwright-core'

const bin = process.env.SEMPROXY_BIN
const slow = Number(process.env.SEMPROXY_TEST_SLOW || 1)
const patience = 240000 * slow
const [layers, tokens, dim, queryHeads, window] = [30, 8000, 16, 3, 16]
const dir = mkdtempSync(join(tmpdir(), 'semproxy-large-'))
const env = Object.fromEntries(Object.entries(process.env).filter(([k]) => !k.startsWith('SEMPROXY_')))
const file = join(dir, 'large.page.safetensors')
let sidecar, browser, admin

const port = () => new Promise((done) => {
  const s = createServer().listen(0, '127.0.0.1', () => {
    const { port } = s.address()
    s.close(() => done(port))
  })
})
const run = (...args) => {
  const r = spawnSync(bin, args, { encoding: 'utf8', timeout: 3 * patience, env })
  assert.equal(r.status, 0, r.stdout + r.stderr)
}

before(async () => {
  writeFileSync(file, largePage())
  const [a, n] = [await port(), await port()]
  admin = `http://127.0.0.1:${a}`
  writeFileSync(join(dir, 'policy.yaml'), 'apiVersion: semproxy.io/v1\nprofiles: { half: { method: uniform, ratio: 0.5 } }\ntenants: { acme: { record: text, rules: [ { profile: half } ] } }\n')
  sidecar = spawn(bin, ['serve', '--policy-path', join(dir, 'policy.yaml'), '--admin-listen', `127.0.0.1:${a}`, '--nats-embedded-listen', `127.0.0.1:${n}`, '--nats-embedded-max-payload', '64MiB'], { stdio: 'ignore', env })
  for (let i = 0; !(await fetch(`${admin}/readyz`).catch(() => ({}))).ok; i++) {
    assert.ok(i < patience / 100, 'the sidecar does not start')
    await new Promise((r) => setTimeout(r, 100))
  }
  run('prove', '--nats-url', `nats://127.0.0.1:${n}`, '--tenant', 'acme', '--page', file, '--rounds', '1', '--max-error', '0', '--max-ratio', '1', '--timeout', `${patience / 1000}s`)
  browser = await chromium.launch({ executablePath: process.env.CHROMIUM || '/usr/bin/chromium', timeout: patience, args: ['--no-sandbox', '--disable-gpu', '--disable-dev-shm-usage'] })
})
after(async () => {
  await browser?.close()
  sidecar?.kill()
})

/** open shows a page whose browser notes how long interactions and tasks take. */
async function open(url) {
  const page = await (await browser.newContext({ viewport: { width: 1280, height: 900 } })).newPage()
  page.setDefaultTimeout(patience)
  await page.addInitScript(() => {
    window.took = { events: {}, tasks: [] }
    new PerformanceObserver((l) => l.getEntries().forEach((e) => e.interactionId && (window.took.events[e.interactionId] = Math.max(e.duration, window.took.events[e.interactionId] || 0)))).observe({ type: 'event', durationThreshold: 16 })
    new PerformanceObserver((l) => l.getEntries().forEach((e) => window.took.tasks.push(e.duration))).observe({ type: 'longtask' })
  })
  await page.goto(url)
  return page
}

/** measure does something many times and wants it answered in time; what took less than 16 ms the browser does not tell. */
async function measure(page, what, times, act) {
  await page.evaluate(() => Object.assign(window.took, { events: {}, tasks: [] }))
  for (let i = 0; i < times; i++) {
    await act(i)
    await page.evaluate(() => new Promise((r) => requestAnimationFrame(() => setTimeout(r, 30))))
  }
  const { events: one, tasks } = await page.evaluate(() => window.took)
  const events = Object.values(one)
  const sorted = [...events, ...Array(Math.max(0, times - events.length)).fill(0)].sort((a, b) => a - b)
  const median = sorted[Math.floor(sorted.length / 2)]
  console.log(`${what}: ${times} times, median ${median ? `${median} ms` : 'under 16 ms'}, worst ${sorted.at(-1) || 'under 16'} ms, longest task ${Math.max(0, ...tasks) || 'under 50'} ms`)
  const limit = 100 * Math.max(1, loadavg()[0] / cpus().length) // where others have the processors, all takes longer
  assert.ok(median < limit, `${what}: got a median of ${median} ms, want less than ${limit.toFixed(0)}: ${sorted}`)
}

/** strip measures what is done to the tokens. */
async function strip(page, name) {
  await page.locator('.tokens').waitFor()
  await page.locator('h1').click()
  await measure(page, `${name}: a key that does nothing`, 20, () => page.keyboard.press('a'))
  await page.locator('select[aria-label="layer"]').focus()
  const layer = () => page.locator('.run .alone').count()
  assert.ok((await layer()) >= 0)
  const colours = () => page.locator('.run').first().evaluate((e) => [...e.children].map((c) => c.className).join())
  const was = await colours()
  await measure(page, `${name}: another layer`, 20, (i) => page.keyboard.press(i % 12 === 11 ? 'Home' : 'ArrowDown'))
  assert.notEqual(await colours(), was, 'another layer has the same colours')
  await page.locator('.tokens').focus()
  await measure(page, `${name}: the next token`, 20, () => page.keyboard.press('ArrowRight'))
  await measure(page, `${name}: the last token and back`, 10, (i) => page.keyboard.press(i % 2 ? 'Home' : 'End'))
  await page.keyboard.press('End')
  assert.match(await page.locator('.tokens + .tip').innerText(), /token 7999/)
  assert.match(await page.locator('.run span[data-i="7999"]').getAttribute('class'), /alone|k\d|dropped/)
}

test('the studio on a recorded page', async () => {
  const { pages } = await (await fetch(`${admin}/api/v1/pages?tenant=acme`)).json()
  const source = `page:${pages.at(-1).id}`
  const body = JSON.stringify({ source, profile: { method: 'uniform', ratio: 0.5 } })
  const start = performance.now()
  const answer = await (await fetch(`${admin}/api/v1/studio/run`, { method: 'POST', body, headers: { 'Content-Type': 'application/json' } })).text()
  const parsed = JSON.parse(answer)
  console.log(`server: ${(performance.now() - start).toFixed(0)} ms for an answer of ${(answer.length / 1024).toFixed(0)} KiB (compress ${parsed.ms.toFixed(0)} ms, measure ${parsed.measureMs.toFixed(0)} ms)`)
  const page = await open(`${admin}/console/#/studio/${encodeURIComponent(source)}`)
  await page.locator('#figures .stat').first().waitFor()
  await page.waitForFunction(() => document.getElementById('main').dataset.curves === '8')
  await strip(page, 'studio')
  await page.locator('#ratio').focus()
  await measure(page, 'studio: the ratio, while the sidecar works', 20, () => page.keyboard.press('ArrowLeft'))
  await page.waitForFunction(() => document.getElementById('yaml').textContent.includes('ratio: 0.3'))
  await measure(page, 'studio: a method', 6, (i) => page.locator('.method').nth(1 + (i % 3)).click())
})

test('the file of semproxy inspect', async () => {
  const html = join(dir, 'large.html')
  run('inspect', file, '--html', html)
  await strip(await open(`file://${html}`), 'file')
})

/** largePage has one KV head, so that it is small: what the browser shows at a time is one head's tokens, however many there are. */
function largePage() {
  const n = layers * tokens * dim * 2, q = layers * queryHeads * window * dim * 2
  const shape = [layers, 1, tokens, dim]
  const meta = { format: 'semproxy.page.v1', model: 'large', sequence: 'large', layout: 'hf.llama.LHTD', dtype: 'BF16', layer_first: '0', token_first: '0', page: '0', pages: '1', tokens_total: String(tokens), rope: JSON.stringify({ type: 'default', theta: 10000, rotary_dim: dim, interleaved: false }) }
  let at = 0
  const tensor = (dtype, shape, bytes) => ({ dtype, shape, data_offsets: [at, (at += bytes)] })
  const header = Buffer.from(JSON.stringify({ __metadata__: meta, k: tensor('BF16', shape, n), v: tensor('BF16', shape, n), token_ids: tensor('I32', [tokens], 4 * tokens), positions: tensor('I32', [tokens], 4 * tokens), q: tensor('BF16', [layers, queryHeads, window, dim], q) }))
  const pad = Buffer.alloc((8 - (header.length % 8)) % 8, ' ')
  const size = Buffer.alloc(8)
  size.writeBigUInt64LE(BigInt(header.length + pad.length))
  let seed = 1
  const numbers = (bytes) => { // BF16 of numbers near 1, so that tokens differ and nothing overflows
    const b = Buffer.alloc(bytes)
    for (let i = 0; i < bytes / 2; i++) {
      seed = (seed * 1103515245 + 12345) & 0x7fffffff
      b.writeUInt16LE(0x3f00 | (seed >> 16 & 0xff) | ((seed >> 8 & 1) << 15), 2 * i)
    }
    return b
  }
  const ids = new Int32Array(2 * tokens)
  for (let i = 0; i < tokens; i++) {
    ids[i] = i % 1000
    ids[tokens + i] = i
  }
  return Buffer.concat([size, header, pad, numbers(n), numbers(n), Buffer.from(ids.buffer), numbers(q)])
}
