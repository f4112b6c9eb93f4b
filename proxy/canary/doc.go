// Package canary asks an engine a known question with and without compressed KV, and lets nothing be compressed until the
// answers are alike: when the process starts, when the engine has started anew, and when the policy has changed.
//
// A [Canary] sends one prompt at temperature 0 four times: exact, exact once more, compressed, and compressed with the same salt, so
// that an engine which stores pages for later reads them. If the two exact answers
// differ by more than the limit, the engine does not repeat itself and nothing can be said; if a compressed one differs from the
// exact one by more, compressing does harm here. In both cases [Canary.Off] says why, and the proxy leaves prompts exact.
package canary
