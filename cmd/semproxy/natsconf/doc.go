// Package natsconf writes configurations of nats-server for semproxy: who may speak as which tenant. Keys are nkeys: the
// configuration holds public keys only, each seed is a file of its own.
package natsconf
