// Package proxybench measures what a proxy in front of an engine costs: semproxy, nginx and Caddy, each a process of its own,
// beside the way without any of them, in one run and in turns, so that what else the machine does slows all alike.
//
// The engine is a stand-in (see [Engine]) whose answers take as long as they are asked to: with none of that time the
// processor is what is shared, with some of it connections are, which is how engines are used. The client is one goroutine
// per kept connection, without a pool or a transport, so that it costs little beside what is measured.
package proxybench
