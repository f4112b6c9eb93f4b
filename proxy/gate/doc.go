// Package gate says whether compressing a prompt should pay.
//
// Compressing costs the time to move and merge the pages; what it buys is that every decoded token reads fewer keys and
// values. [Gate.Decide] weighs the two for one request, from what [Gate.Reply] and [Gate.Page] learnt of earlier requests of the
// same model, and says why. It decides nothing about quality: that is the policy's.
//
// What is learnt per model: tokens per byte of prompt, tokens of an answer, the time of a decode step as a line over the
// length of the context, bytes of KV per token, and the time per byte of page. All are averages that forget, over a
// bounded number of models. The package is pure: no clock, no network, no log.
package gate
