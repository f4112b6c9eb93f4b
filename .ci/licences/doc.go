// Command licences says under which licences the code is that goes into the program semproxy beside its own: Go modules that the
// linker takes, the Go library, and what the console's pages hold. It reads the modules' files in Go's cache, so it needs no network.
//
//	go run .               refuses code without a licence, or with one that is not on the list
//	go run . --notices FILE    writes the licences' texts too, and the notices that some ask to hand on
package main
