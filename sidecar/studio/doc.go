// Package studio tries policies on pages, for people who look: the console's policy studio, `semproxy inspect` and eval's report. A
// page comes from the demo, from a text that a model is run on, or from a tenant whose policy lets the console record. It is taken
// through the pipeline as the service would take it, without a store, and every figure is measured on it.
package studio
