// Builds the console into ../dist, which is committed: node build.mjs [FOLDER]. CI builds it again and compares.
import { build } from 'esbuild'
import { copyFile, mkdir } from 'node:fs/promises'

const out = process.argv[2] || new URL('../dist', import.meta.url).pathname
const src = new URL('src/', import.meta.url).pathname
await mkdir(out, { recursive: true })
await build({ entryPoints: { app: src + 'main.js' }, outdir: out, bundle: true, minify: true, format: 'esm', target: ['es2022', 'chrome110', 'firefox115', 'safari16.4'], legalComments: 'linked', charset: 'utf8', logLevel: 'warning' })
await build({ entryPoints: { inspect: src + 'inspect.js' }, outdir: out, bundle: true, minify: true, format: 'iife', target: ['es2022'], legalComments: 'none', charset: 'utf8', logLevel: 'warning' })
for (const name of ['index.html', 'icon.svg']) await copyFile(src + name, `${out}/${name}`)
