// Package spans finds which tokens of a prompt belong to which messages of a chat, so that a policy can keep a system
// prompt exact while the rest is merged.
//
// Nobody but the engine knows how its chat template renders messages into tokens, so a [Finder] asks the engine's /tokenize:
// for the whole prompt, and for the chat up to each place where protected messages begin or end. Only where the tokens of
// such a part are the very first tokens of the whole is its length a place in the prompt, and only where the tokens between two
// places are, by the engine's /detokenize, the messages' texts is that a span: a template that renders a message otherwise
// when others follow, or elsewhere, is found out by that, and nothing is claimed. Lengths of parts are remembered under a digest,
// since a conversation's beginning comes again with each turn; no text and no token is.
package spans
