// Package codes is every stable error code of pages, jobs and the store, once: its name, whether the same bytes may succeed when
// they are sent again, what it means and what a sender does. The packages that give a code take its name from here;
// docs/reference/errors.md is written from it.
package codes

//go:generate go test . -run ^TestTheManualHasEveryCode$ -update
