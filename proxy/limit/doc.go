// Package limit says how much a tenant may ask of an engine at a time: so many requests at once, so many that wait, so
// many a second, so many tokens a minute.
//
// [Admission.Enter] admits a request, lets it wait for its turn, or refuses it with a [BusyError] that says when to come
// again. [Ticket.Reserve] takes the tokens that a request is expected to use, [Ticket.Leave] settles with what it did use.
// Memory is bounded by the tenants that the policy names.
package limit
