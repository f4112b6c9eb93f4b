// Package reports carries what became of pages from the process of the page plane to that of the request plane, where the two run
// apart: what a request's record, the console and the cost gate know of its pages.
//
// The request plane's process listens on a Unix socket ([Listen]); the page plane's connects to it ([NewSender]) and again whenever it
// is cut, so that either may start first and either may be killed. A report is one line of JSON of at most 256 KiB. Reports are
// figures, and none is owed: a page never waits for one. Where the reader is slow or away the last 1,024 wait, older ones are dropped and
// counted. A connection is taken from processes of the same user and of root alone.
package reports
