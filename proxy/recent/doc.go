// Package recent remembers the last requests, so that a person can ask what happened to one: which rule decided, what the
// gate said, which pages were compressed and how well, how long each part took.
//
// A [Ring] holds a bounded number of [Request] records, each with a bounded number of [Page] records. Pages come from the
// page plane at any time, also after the answer: they find their request by the object's name that the proxy gave to the
// engine, else by the trace. What decides those pages, the headers that rules look at and the messages that are protected, is kept
// for the request's life and some minutes more, apart from the records and for each tenant by itself. Message content is never part of a record.
package recent
