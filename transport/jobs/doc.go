// Package jobs takes pages whose senders do not wait: each is kept by NATS JetStream until its cores are stored.
//
// A sender requests kv.<tenant>.v1.job; any sidecar puts the page into the tenant's own stream and answers, and then the
// sender may go away. The page lies in the stream, in files, until a sidecar has compressed it and its store has
// committed; only then is it acknowledged, and what became of it is published to kv.<tenant>.v1.done.<job>, where it can also be asked for later (kv.<tenant>.v1.result). A fault that passes
// gives the page back to be tried later, by any sidecar. A page that can never succeed becomes a dead letter: the page
// and the reason, in a stream of their own, from where an operator can send it again.
//
// There is a stream per tenant because JetStream recognises duplicates by Nats-Msg-Id in the whole stream: in a shared
// one, a tenant could suppress another's page by using its id first.
//
// No page is read before it was admitted: the consumer delivers headers and sizes, [Runner] offers each to the same queue
// as requests, and a worker fetches the page when its turn comes.
package jobs
