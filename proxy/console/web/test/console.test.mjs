// End-to-end tests of the console in headless Chromium, against a real sidecar: CHROMIUM and SEMPROXY_BIN name the programs. The docs'
// screenshots are made by the same run where SHOTS names a folder.
import { test, before, after, afterEach } from 'node:test'
import assert from 'node:assert/strict'
import { spawn, spawnSync } from 'node:child_process'
import { mkdtempSync, writeFileSync, readFileSync, mkdirSync } from 'node:fs'
import { createServer as createEngine } from 'node:http'
import { createServer } from 'node:net'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { chromium } from 'playwright-core'

const bin = process.env.SEMPROXY_BIN, shots = process.env.SHOTS
const slow = Number(process.env.SEMPROXY_TEST_SLOW || 1) // waits are longer on a loaded machine
const patience = 240000 * slow // ms: a wait ends here only where nothing comes any more, so that a loaded machine fails no test
const axe = readFileSync(new URL('../node_modules/axe-core/axe.min.js', import.meta.url), 'utf8')
const dir = mkdtempSync(join(tmpdir(), 'semproxy-console-'))
// The program refuses variables that it does not know.
const env = Object.fromEntries(Object.entries(process.env).filter(([k]) => !k.startsWith('SEMPROXY_')))
let sidecar, browser, admin, nats, engine, proxy, errors

const port = () => new Promise((done) => {
  const s = createServer().listen(0, '127.0.0.1', () => {
    const { port } = s.address()
    s.close(() => done(port))
  })
})
const run = (...args) => {
  const r = spawnSync(bin, args, { encoding: 'utf8', timeout: 3 * patience, env })
  return { ...r, all: r.stdout + r.stderr }
}
const policy = join(dir, 'policy.yaml')
const rules = (record) => `apiVersion: semproxy.io/v1
profiles:
  half: { method: weighted, ratio: 0.5 }
  quarter: { method: weighted, ratio: 0.25, guard: { maxAttentionError: 0.5, onViolation: report } }
tenants:
  acme: { record: ${record}, rules: [ { name: all of acme, profile: half } ] }
  globex: { record: pages, rules: [ { match: { minTokens: 100 }, profile: quarter }, { profile: exact } ] }
  initech: { rules: [ { profile: half } ] }
  anonymous: { verify: { share: 1 }, rules: [ { profile: half } ] }
`

/** answer is an engine that says the same to every prompt, but for compressed ones that ask for a fact. */
function answer(req, res) {
  let body = ''
  req.on('data', (d) => (body += d)).on('end', () => {
    const asked = body ? JSON.parse(body) : {}
    const text = asked.kv_transfer_params?.compress && body.includes('fact') ? 'another' : 'the same'
    res.writeHead(200, { 'Content-Type': 'application/json' })
    res.end(JSON.stringify({ id: 'x', object: 'chat.completion', model: 'm', choices: [{ index: 0, message: { role: 'assistant', content: text }, finish_reason: 'stop' }], usage: { prompt_tokens: Math.round(body.length / 4), completion_tokens: 2, total_tokens: Math.round(body.length / 4) + 2 } }))
  })
}

before(async () => {
  const [a, n] = [await port(), await port()]
  admin = `http://127.0.0.1:${a}`
  nats = `nats://127.0.0.1:${n}`
  writeFileSync(policy, rules('text'))
  engine = createEngine(answer)
  await new Promise((r) => engine.listen(0, '127.0.0.1', r))
  proxy = `http://127.0.0.1:${await port()}`
  sidecar = spawn(bin, ['serve', '--policy-path', policy, '--admin-listen', `127.0.0.1:${a}`, '--nats-embedded-listen', `127.0.0.1:${n}`,
    '--proxy-listen', proxy.slice(7), '--proxy-engine-url', `http://127.0.0.1:${engine.address().port}`, '--proxy-identity-anonymous-tenant', 'anonymous', '--proxy-verify-every', '10ms'], { stdio: 'ignore', env })
  for (let i = 0; ; i++) {
    try {
      if ((await fetch(`${admin}/readyz`)).ok) break
    } catch {
      // not yet
    }
    assert.ok(i < patience / 100, 'the sidecar does not start')
    await new Promise((r) => setTimeout(r, 100))
  }
  for (const tenant of ['acme', 'globex', 'initech']) {
    const r = run('prove', '--nats-url', nats, '--tenant', tenant, '--max-error', '1', '--max-ratio', '1', '--timeout', `${patience / 1000}s`)
    assert.equal(r.status, 0, r.all)
  }
  browser = await chromium.launch({ executablePath: process.env.CHROMIUM || '/usr/bin/chromium', timeout: patience, args: ['--no-sandbox', '--disable-gpu', '--disable-dev-shm-usage'] })
})
afterEach(() => Promise.all((browser?.contexts() ?? []).map((c) => c.close()))) // what a failed test left open takes time from the next
after(async () => {
  await browser?.close()
  sidecar?.kill()
  engine?.close()
  engine?.closeAllConnections()
})

/** open shows a view in a new page; errors collects what the console of the browser says. */
async function open(hash, { width = 1280, scheme = 'light', motion = 'no-preference' } = {}) {
  const context = await browser.newContext({ viewport: { width, height: 900 }, colorScheme: scheme, reducedMotion: motion, permissions: ['clipboard-read', 'clipboard-write'] })
  const page = await context.newPage()
  page.setDefaultTimeout(patience)
  errors = []
  page.on('console', (m) => m.type() === 'error' && errors.push(m.text()))
  page.on('pageerror', (e) => errors.push(e.message))
  await page.goto(`${admin}/console/${hash}`)
  return page
}

/** check wants no errors, no serious findings of axe-core, and nothing wider than the window. */
async function check(page, name) {
  assert.deepEqual(errors, [], `${name}: errors in the browser`)
  await page.evaluate(axe)
  const found = await page.evaluate(() => window.axe.run(document, { resultTypes: ['violations'] }))
  const serious = found.violations.filter((v) => ['serious', 'critical'].includes(v.impact))
  assert.deepEqual(serious.map((v) => `${v.id}: ${v.nodes[0].html} ${v.nodes[0].failureSummary}`), [], `${name}: axe-core`)
  const wide = await page.evaluate(() => document.documentElement.scrollWidth - innerWidth)
  assert.ok(wide <= 0, `${name} is ${wide} px wider than the window`)
  if (shots) {
    mkdirSync(shots, { recursive: true })
    await page.evaluate(() => scrollTo(0, 0))
    await page.screenshot({ path: join(shots, `${name}.png`), fullPage: true, timeout: patience })
  }
  await page.context().close()
}

const pageOf = async (tenant) => (await (await fetch(`${admin}/api/v1/pages?tenant=${tenant}`)).json()).pages.at(-1).id

for (const [scheme, width] of [['light', 1280], ['dark', 1280], ['light', 390], ['dark', 390]]) {
  test(`overview, ${scheme}, ${width} px`, async () => {
    const page = await open('', { scheme, width })
    await page.getByRole('link', { name: 'acme' }).waitFor()
    assert.match(await page.locator('.stats').first().innerText(), /KV bytes saved/)
    await page.locator('.uplot').first().waitFor()
    await check(page, `overview-${scheme}-${width}`)
  })
  test(`a tenant, ${scheme}, ${width} px`, async () => {
    const page = await open('#/tenant/globex', { scheme, width })
    await page.getByText('the last page matched this').waitFor()
    await check(page, `tenant-${scheme}-${width}`)
  })
  test(`a page, ${scheme}, ${width} px`, async () => {
    const page = await open(`#/page/${await pageOf('acme')}`, { scheme, width })
    await page.locator('.tokens').waitFor()
    assert.ok((await page.locator('.run span').count()) >= 500)
    await check(page, `page-${scheme}-${width}`)
  })
}

test('the overview is live', async () => {
  const page = await open('')
  const cell = page.locator('tr', { hasText: 'acme' }).locator('td[data-name="Pages"]')
  await cell.waitFor()
  const was = Number(await cell.innerText())
  assert.equal(run('prove', '--nats-url', nats, '--tenant', 'acme', '--max-error', '1', '--max-ratio', '1', '--timeout', `${patience / 1000}s`).status, 0)
  await page.waitForFunction((n) => Number([...document.querySelectorAll('tr')].find((r) => r.innerText.includes('acme'))?.querySelector('td[data-name="Pages"]').innerText) > n, was)
  await check(page, 'overview-live')
})

test('the overview has what verified answers have shown', async () => {
  for (const content of ['hello', 'hello again', 'a fact']) {
    const r = await fetch(`${proxy}/v1/chat/completions`, { method: 'POST', headers: { 'Content-Type': 'application/json' }, body: JSON.stringify({ model: 'm', messages: [{ role: 'user', content: `${content} ${'and so on '.repeat(800)}` }] }) })
    assert.equal(r.status, 200, await r.text())
    for (let i = 0, n = -1; n < 1 + ['hello', 'hello again', 'a fact'].indexOf(content); i++) { // one at a time is verified; others are left out
      assert.ok(i < patience / 100, 'nothing is verified')
      n = (await (await fetch(`${admin}/api/v1/overview`)).json()).verified[0]?.samples ?? 0
      await new Promise((done) => setTimeout(done, 50))
    }
  }
  const page = await open('')
  await page.locator('#verified td[data-name="Changed"]').waitFor()
  assert.match(await page.locator('#verified').innerText(), /anonymous\s+half\s+3\s+33\.3 % \(/)
  assert.match(await page.locator('.stats').first().innerText(), /33\.3 %\s+1 of 3 verified; 0 change without compression/)
  await check(page, 'overview-verified')
})

test('what the policy does not let be shown is not there', async () => {
  const page = await open(`#/page/${await pageOf('globex')}`)
  await page.getByText('does not let the console show what tokens say').waitFor()
  assert.match(await page.locator('.run').first().innerText(), /^[•\s]+$/)
  const id = await pageOf('globex')
  const answer = await (await fetch(`${admin}/api/v1/studio/tokens?source=page:${id}`)).json()
  assert.deepEqual([answer.redacted, answer.words, answer.ids], [true, [], []])
  await check(page, 'page-redacted')
  const none = await open(`#/page/${await pageOf('initech')}`)
  await none.getByText('This page was not recorded').waitFor()
  await check(none, 'page-not-recorded')
})

test('the studio: a change moves cores, loss and curve; the YAML that is copied passes policy check', async () => {
  const page = await open('#/studio')
  await page.locator('#figures .stat').first().waitFor()
  await page.waitForFunction(() => document.getElementById('main').dataset.curves === '8', null, { timeout: 2 * patience })
  const figures = () => page.locator('#figures').innerText()
  const classes = () => page.locator('.run').first().evaluate((e) => [...e.children].map((c) => c.className).join())
  const [was, cores] = [await figures(), await classes()]
  await page.locator('#ratio').fill('0.2')
  await page.waitForFunction((t) => document.getElementById('figures').innerText !== t, was)
  assert.notEqual(await classes(), cores, 'the tokens have kept their colours')
  await page.waitForFunction(() => document.getElementById('yaml').textContent.includes('ratio: 0.2'))
  await page.getByText('semantic', { exact: true }).first().click()
  await page.waitForFunction(() => document.getElementById('yaml').textContent.includes('method: semantic'))
  await page.locator('.run span').nth(10).click()
  await page.locator('.run span').nth(20).click({ modifiers: ['Shift'] })
  await page.waitForFunction(() => /spans: .*from: 10, to: 21/.test(document.getElementById('yaml').textContent))
  await page.locator('#copy').click()
  const yaml = await page.evaluate(() => navigator.clipboard.readText())
  const file = join(dir, 'copied.yaml')
  writeFileSync(file, yaml)
  const checked = run('policy', 'check', file)
  assert.equal(checked.status, 0, checked.all)
  await check(page, 'studio')
})

test('the studio takes a text of one’s own, and is worked with the keyboard', async () => {
  const page = await open('#/studio', { width: 390, motion: 'reduce' })
  await page.locator('#figures .stat').first().waitFor()
  await page.getByText('or a text of your own').click()
  await page.locator('#own').fill('The quick brown fox jumps over the lazy dog, and the dog sleeps on. '.repeat(12))
  await page.getByRole('button', { name: 'Use this text' }).click()
  await page.waitForFunction(() => document.querySelector('.run')?.innerText.includes('quick'))
  await page.locator('.tokens').focus()
  for (const key of ['ArrowRight', 'ArrowRight', 'Enter', 'ArrowRight', 'ArrowRight', 'Shift+Enter']) await page.keyboard.press(key)
  await page.waitForFunction(() => /from: 2, to: 5/.test(document.getElementById('yaml').textContent))
  await check(page, 'studio-own-390')
})

test('with a token nothing is shown without it', async () => {
  const [a, n] = [await port(), await port()]
  writeFileSync(join(dir, 'token'), 'secret')
  const other = spawn(bin, ['serve', '--policy-path', policy, '--admin-token-file', join(dir, 'token'), '--admin-listen', `127.0.0.1:${a}`, '--nats-embedded-listen', `127.0.0.1:${n}`], { stdio: 'ignore', env })
  const was = admin
  try {
    admin = `http://127.0.0.1:${a}`
    for (let i = 0; i < patience / 100; i++) {
      try {
        if ((await fetch(`${admin}/readyz`)).ok) break
      } catch {
        await new Promise((r) => setTimeout(r, 100))
      }
    }
    const page = await open('')
    await page.locator('#token').fill('wrong')
    await page.keyboard.press('Enter')
    await page.locator('[role=alert]').waitFor()
    await page.locator('#token').fill('secret')
    await page.keyboard.press('Enter')
    await page.getByText('No page and no request has come yet').waitFor()
    errors = errors.filter((e) => !e.includes('401'))
    await check(page, 'token')
  } finally {
    admin = was
    other.kill()
  }
})
