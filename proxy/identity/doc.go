// Package identity says which tenant a request belongs to, by what it can prove: an API key, a JSON Web Token, or a header
// that is believed only from listed peers. Nothing in a body and no other header names a tenant.
//
// [Resolver.Resolve] answers with the tenant or with an error of status 401 that says what is missing and nothing else. Keys are
// kept as SHA-256 hashes (they are random, so a slow hash would add nothing), compared in constant time, and read again
// when their file changes; so are the keys that sign tokens.
package identity
