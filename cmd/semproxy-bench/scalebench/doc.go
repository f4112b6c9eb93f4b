// Package scalebench says what semproxy does with more than one node. It measures one, two and four real sidecars in one
// queue group, between a NATS and a Redis of three servers each, on one machine. From what a page took of each part it
// then simulates 1 to 1,000 nodes, event by event, and says what saturates first. The simulation is held against the
// measured sizes in the same report, and is the same for the same seed.
package scalebench
