// Package verify asks an engine again, exactly, what a sample of real requests asked it with compressed KV, and says how often the
// answers differ: per tenant and profile, with confidence intervals. A profile that changes more answers of a tenant than its policy
// allows, surely and not by chance, is stepped back: the tenant's prompts stay exact until the policy changes.
//
// Each sampled request is asked three times, off its own path: twice exactly and once compressed, with temperature 0 and one seed.
// The second exact answer is the control: an engine that does not repeat itself is not blamed on the compression. Nothing of
// prompts and answers is kept.
package verify
