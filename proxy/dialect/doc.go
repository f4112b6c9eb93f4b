// Package dialect knows how inference engines speak HTTP: which paths there are, what a request asks for, where a reply
// says how many tokens were used, and what an error looks like to the clients of each.
//
// There are two dialects: OpenAI's (vLLM, TGI's /v1 and many others) and TGI's own. [Lookup] finds a request's [Route],
// [Inspect] reads what a JSON body asks for, [Request.Rewrite] changes top-level members and leaves every other byte of
// the values as it was, [Events] splits a stream of server-sent events without holding it back, and [ReadUsage] finds the
// token counts. The package is pure: no network, no clock, no logs; message content is looked at only for its length.
package dialect
