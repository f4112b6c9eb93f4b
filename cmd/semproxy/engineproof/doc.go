// Package engineproof asks an engine behind semproxy the operator's own prompts, exactly and on cores, and tells how the answers differ.
//
// Every prompt is asked greedily: exactly twice, which shows what the engine itself does not repeat, then so that its KV is
// stored, then again, on cores. The last two are in prefix caches of their own, so that what the engine has in full does
// not answer for the cores. A [Report] holds the answers against limits for each tenant and profile. It says that there is no answer
// where too few prompts were asked, nothing shows that cores were used, or the engine does not repeat itself.
package engineproof
