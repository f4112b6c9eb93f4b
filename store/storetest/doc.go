// Package storetest is the suite that every object store passes: what a store promises, as tests. An implementation's
// own test calls [Run] with a function that opens an empty store.
package storetest
