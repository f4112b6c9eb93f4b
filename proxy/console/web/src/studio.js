import { h, put, api, bytes, count, percent, fixed, ms, stat, pill, failure, toneOf, announce, table } from './dom.js'
import { curves } from './charts.js'
import { headView } from './page.js'

const ratios = [0.75, 0.5, 0.35, 0.25, 0.15]
const about = {
  none: 'keeps every token', weighted: 'merges what means the same; recent and unusual tokens are dearer', semantic: 'the same without weights', paper: 'the nearest reading of the paper',
  hybrid: 'keeps what the last queries look at, merges the rest', uniform: 'merges neighbours', window: 'drops all but the first and last tokens', keynorm: 'drops tokens with long keys', attention: 'drops what the last queries do not look at',
}

/** factsLost is the expected share of facts lost, where the page's queries could tell. */
const factsLost = (r) => (r.fidelity?.facts_lost === undefined ? undefined : Number(r.fidelity.facts_lost))

/** A change is run when nothing has changed for so many milliseconds. */
const pause = 120

/** studio lets a person move a policy and see what it does. */
export async function studio(main, wanted) {
  put(main, h('p.muted', {}, 'Loading…'))
  const info = await api('studio')
  const state = {
    source: info.sources.find((s) => s.id === wanted)?.id || info.sources[0]?.id,
    profile: { method: 'weighted', ratio: 0.5, budget: 'adaptive', fp8: false, guard: 0, onViolation: 'relax', sinks: 4, recent: 16, spans: [] },
    curves: new Map(), run: 0,
  }
  let view, chart, tokens, timer, controller, last

  /** written is the profile in a policy's words. */
  function written(p = state.profile) {
    const m = info.methods.find((x) => x.method === p.method)
    if (p.method === 'none') return { method: 'none' }
    const out = { method: p.method, ratio: p.ratio }
    if (m.clusters) out.budget = p.budget
    if (p.fp8) out.fp8 = true
    out.protect = { sinks: p.method === 'window' ? Math.max(1, p.sinks) : p.sinks }
    if (p.method !== 'window') out.protect.recent = p.recent
    if (p.spans.length) out.protect.spans = p.spans
    if (p.guard > 0) out.guard = { maxFactsLost: p.guard, onViolation: p.onViolation }
    return out
  }

  // The controls.
  const source = h('select#source', { onchange: () => choose(source.value) })
  const method = h('div.methods', { role: 'radiogroup', 'aria-labelledby': 'method-name' })
  const ratioOut = h('output', { for: 'ratio' }), guardOut = h('output', { for: 'guard' })
  const ratio = h('input#ratio', { type: 'range', min: '0.05', max: '1', step: '0.01', oninput: () => set({ ratio: Number(ratio.value) }) })
  const guard = h('input#guard', { type: 'range', min: '0', max: '0.2', step: '0.005', oninput: () => set({ guard: Number(guard.value) }) })
  const budget = h('select#budget', { onchange: () => set({ budget: budget.value }) }, info.budgets.map((b) => h('option', { value: b }, b)))
  const fp8 = h('input#fp8', { type: 'checkbox', onchange: () => set({ fp8: fp8.checked }) })
  const number = (id, key) => h(`input#${id}`, { type: 'number', min: '0', max: '4096', onchange: (e) => set({ [key]: Math.max(0, Number(e.target.value) || 0) }) })
  const sinks = number('sinks', 'sinks'), recent = number('recent', 'recent')
  const spans = h('div.spans')
  const text = h('textarea#own', { rows: '4', maxlength: String(info.maxChars), placeholder: 'Paste a text of 250 to 4,000 letters…' })
  const textNote = h('p.muted', { role: 'status' })
  const use = h('button', { type: 'button', onclick: addText }, 'Use this text')

  // The results.
  const figures = h('div#figures', { 'aria-live': 'polite' }), curveBox = h('section.card'), heads = h('section.card'), yaml = h('pre#yaml', { tabindex: '0' }), copyNote = h('span.muted', { role: 'status' })
  const dry = h('div', { role: 'status' })
  const problem = h('div')

  put(main, h('h1', {}, 'Policy studio'), h('p.muted', {}, 'Move a policy and see at once what it does to a page: every figure is measured on it, here, now.'),
    h('div.studio', {},
      h('form.card.controls', { onsubmit: (e) => e.preventDefault(), 'aria-label': 'policy' },
        h('label', { for: 'source' }, 'Page'), source,
        info.text ? h('details', {}, h('summary', {}, 'or a text of your own'), h('label.hidden', { for: 'own' }, 'your text'), text, h('div.bar-row', {}, use), textNote) : null,
        h('span.label#method-name', {}, 'Method'), method,
        h('div.line', {}, h('label', { for: 'ratio' }, 'Ratio'), ratioOut), ratio,
        h('label', { for: 'budget' }, 'Budget'), budget,
        h('label.check', {}, fp8, ' 8 bits (FP8): half the bytes again'),
        h('div.line', {}, h('label', { for: 'guard' }, 'Guard: most facts lost'), guardOut), guard,
        h('div.pair', {}, h('div', {}, h('label', { for: 'sinks' }, 'First tokens kept'), sinks), h('div', {}, h('label', { for: 'recent' }, 'Last tokens kept'), recent)),
        h('span.label', {}, 'Protected spans'), spans),
      h('div.results', {}, problem, figures, curveBox, heads,
        h('section.card', {}, h('div.bar-row', {}, h('h2', {}, 'The policy'), h('button#copy', { type: 'button', onclick: copy }, 'Copy YAML'), h('button#dry', { type: 'button', onclick: dryRun }, 'Dry-run it'), copyNote), yaml, dry))))

  function controls() {
    const p = state.profile, m = info.methods.find((x) => x.method === p.method)
    put(source, ['demo', 'text', 'page'].map((kind) => {
      const of = info.sources.filter((s) => s.kind === kind)
      return of.length ? h('optgroup', { label: { demo: 'Demo', text: 'Your texts', page: 'Recorded pages' }[kind] }, of.map((s) => h('option', { value: s.id, selected: s.id === state.source }, `${s.title} (${count(s.tokens)} tokens)`))) : null
    }))
    source.value = state.source
    if (!method.childElementCount) {
      put(method, info.methods.map((x) => h('label.method', {}, h('input', { type: 'radio', name: 'method', value: x.method, onchange: () => set({ method: x.method, recent: x.method === 'weighted' ? 16 : 32 }) }), h('span', {}, h('b', {}, x.method), x.evicts ? [' ', pill('drops')] : null, h('small', {}, about[x.method] || '')))))
    }
    for (const input of method.querySelectorAll('input')) input.checked = input.value === p.method
    ratio.value = String(p.ratio)
    ratioOut.textContent = `${percent(p.ratio, 0)} of the tokens`
    guard.value = String(p.guard)
    guardOut.textContent = p.guard ? percent(p.guard) : 'off'
    budget.value = p.budget
    budget.disabled = !m.clusters
    fp8.checked = p.fp8
    sinks.value = String(p.sinks)
    recent.value = String(p.recent)
    recent.disabled = p.method === 'window'
    for (const c of [ratio, guard, fp8, sinks]) c.disabled = p.method === 'none'
    put(spans, p.spans.length ? p.spans.map((s, i) => h('span.tag', {}, `${s.from}–${s.to - 1} `, h('button.x', { type: 'button', 'aria-label': `remove span ${s.from} to ${s.to - 1}`, onclick: () => set({ spans: p.spans.filter((_, k) => k !== i) }) }, '×')))
      : h('span.muted', {}, 'none: click a token, shift-click another'))
  }

  function set(change) {
    const before = JSON.stringify([state.profile.method, state.profile.budget, state.profile.fp8, state.profile.sinks, state.profile.recent, state.profile.spans])
    Object.assign(state.profile, change)
    controls()
    if (JSON.stringify([state.profile.method, state.profile.budget, state.profile.fp8, state.profile.sinks, state.profile.recent, state.profile.spans]) !== before && change.method === undefined) state.curves.clear()
    clearTimeout(timer)
    timer = setTimeout(run, pause)
  }

  async function choose(id) {
    state.source = id
    state.curves.clear()
    tokens = undefined
    view?.stop()
    view = undefined
    controls()
    await run()
  }

  async function run() {
    const turn = ++state.run
    controller?.abort()
    controller = new AbortController()
    const { signal } = controller
    main.dataset.busy = 'true'
    try {
      tokens ??= await api(`studio/tokens?source=${encodeURIComponent(state.source)}`, { signal })
      const r = await api('studio/run', { method: 'POST', body: { source: state.source, profile: written() }, signal })
      if (turn !== state.run) return
      put(problem)
      last = r
      show(r)
      main.dataset.busy = 'false'
      await allCurves(turn, signal)
    } catch (e) {
      if (e.name === 'AbortError' || turn !== state.run) return
      main.dataset.busy = 'false'
      put(problem, failure(e))
    }
  }

  function show(r) {
    const src = info.sources.find((s) => s.id === r.source)
    put(figures, h('dl.stats', {},
      stat('Bytes kept', percent(r.bytesOut / r.bytesIn), `${bytes(r.bytesIn)} → ${bytes(r.bytesOut)}`, 'lead'),
      factsLost(r) === undefined ? null : stat('Facts lost', percent(factsLost(r)), 'expected share, by the model’s curve', factsLost(r) <= 0.02 ? 'good' : factsLost(r) <= 0.1 ? 'fair' : 'poor'),
      stat('Attention error', r.measured ? fixed(r.attentionError) : '–', r.measured ? `worst ${fixed(r.worstError)} at ${r.worstHead || '–'}` : 'the page brought no queries', r.measured ? toneOf(r.attentionError) : undefined),
      stat('Cores', percent(r.ratio), `of ${count(r.tokens)} tokens × ${r.layers} layers × ${r.heads} heads${r.dropped ? `; ${count(r.dropped)} tokens dropped per head` : ''}`),
      stat('Guard', r.guard.replace('_', ' '), r.outcome === 'exact' ? 'the page stays exact' : undefined, r.guard === 'violated' ? 'poor' : undefined),
      stat('Time', ms(r.ms), `on ${r.device}; ${ms((1000 * r.ms) / Math.max(1, r.tokens))} for 1,000 tokens`)))
    const more = Object.entries(r.fidelity || {}).filter(([k]) => !['attention_error', 'attention_worst', 'attention_worst_head', 'key_similarity', 'guard', 'facts_lost'].includes(k))
    if (more.length) figures.append(h('p.muted', {}, more.map(([k, v]) => h('span.tag', {}, `${k.replaceAll('_', ' ')} `, h('b', {}, v)))))
    yaml.textContent = r.yaml
    const kept = [{ from: 0, to: state.profile.sinks }, { from: r.tokens - state.profile.recent, to: r.tokens }, ...state.profile.spans]
    if (!view) {
      view = headView(r, tokens, { kept, onPick: (from, to) => set({ spans: [...state.profile.spans, { from, to }].slice(-16) }) })
      put(heads, view.box)
    } else view.update(r, kept)
    announce(`${state.profile.method}: ${percent(r.bytesOut / r.bytesIn)} of the bytes, attention error ${r.measured ? fixed(r.attentionError) : 'not measured'}`)
    if (src) document.title = `studio · ${src.title}`
    drawCurves()
  }

  function drawCurves() {
    const facts = factsLost(last) !== undefined
    const loss = (p) => (facts ? factsLost(p) ?? null : p.attentionError)
    const y = last.measured ? loss(last) : 1 - last.keySimilarity
    const what = facts ? 'expected share of facts lost' : 'attention error'
    const lines = [...state.curves.values()].map((c) => ({ name: c.method, evicts: info.methods.find((m) => m.method === c.method).evicts, points: c.points.filter((p) => p.measured).map((p) => ({ x: 100 * p.bytes, y: loss(p) })) }))
    const next = curves(`Loss (${what}) against bytes kept, for every method`, lines, last.outcome === 'exact' ? undefined : { name: state.profile.method, x: (100 * last.bytesOut) / last.bytesIn, y }, { what })
    chart?.stop()
    chart = next
    const missing = info.methods.length - 1 - state.curves.size
    const cut = [...state.curves.values()].find((c) => c.layers < c.of)
    const refused = [...state.curves.values()].filter((c) => c.why)
    put(curveBox, h('h2', {}, 'Loss against bytes'), h('p.muted', {}, missing > 0 ? `measuring ${missing} methods…` : `the ring is the policy as it stands${cut ? `; measured on ${cut.layers} of ${cut.of} layers` : ''}`), next.box,
      refused.length ? h('p.muted', {}, refused.map((c) => `${c.method}: ${c.why}`).join(' ')) : null,
      h('details', {}, h('summary', {}, 'as a table'), table('Loss of every method', [
        { name: 'Method', cell: (x) => x.method }, { name: 'Tokens kept', num: true, cell: (x) => percent(x.ratio, 0) }, { name: 'Bytes', num: true, cell: (x) => percent(x.bytes) },
        { name: 'Attention error', num: true, cell: (x) => (x.measured ? fixed(x.attentionError) : '–') }, { name: 'Facts lost', num: true, cell: (x) => (factsLost(x) === undefined ? '–' : percent(factsLost(x))) }, { name: 'Time', num: true, cell: (x) => ms(x.ms) },
      ], [...state.curves.values()].flatMap((c) => c.points.map((p) => ({ ...p, method: c.method }))), 'Not measured yet.')))
    main.dataset.curves = String(state.curves.size)
  }

  async function allCurves(turn, signal) {
    const order = [state.profile.method, ...info.methods.map((m) => m.method)].filter((m, i, a) => m !== 'none' && a.indexOf(m) === i)
    for (const m of order) {
      if (state.curves.has(m)) continue
      const profile = written({ ...state.profile, method: m, guard: 0 })
      const c = await api('studio/curve', { method: 'POST', body: { source: state.source, profile, ratios }, signal })
      if (turn !== state.run) return
      state.curves.set(m, c)
      drawCurves()
    }
  }

  async function addText() {
    use.disabled = true
    textNote.textContent = 'running the embedded model on it…'
    try {
      const src = await api('studio/text', { method: 'POST', body: { text: text.value } })
      info.sources.push(src)
      textNote.textContent = `${count(src.tokens)} tokens, ${src.layers} layers`
      await choose(src.id)
    } catch (e) {
      textNote.textContent = e.message
    } finally {
      use.disabled = false
    }
  }

  async function copy() {
    try {
      await navigator.clipboard.writeText(yaml.textContent)
      copyNote.textContent = 'copied'
    } catch {
      getSelection().selectAllChildren(yaml)
      copyNote.textContent = 'selected: press Ctrl+C'
    }
  }

  async function dryRun() {
    put(dry, h('p.muted', {}, 'asking…'))
    try {
      const d = await api('policies/dry-run', { method: 'POST', body: forAll(yaml.textContent), type: 'application/yaml' })
      put(dry, h('p', {}, h('strong', {}, `${count(d.changed)} of ${count(d.requests)} recent requests would be decided otherwise`), d.denied ? `; ${d.denied} would be denied` : '', '. As if every tenant had this profile.'),
        d.warnings.length ? h('ul', {}, d.warnings.map((w) => h('li', {}, `${w.path}: ${w.message}`))) : h('p.muted', {}, 'The policy is valid and has no warnings.'))
    } catch (e) {
      put(dry, e.code === 'not_found' ? h('p', {}, 'There are no requests to run it on: the proxy is off (proxy.listen).') : failure(e))
    }
  }

  controls()
  await run()
  return () => {
    state.run++
    controller?.abort()
    clearTimeout(timer)
    view?.stop()
    chart?.stop()
    document.title = 'semproxy'
  }
}

/** forAll gives the profile to tenants that nobody named, which a dry run looks at. */
const forAll = (text) => text.replace(/ {2}your-tenant:.*\n/, '  unknown:\n')
