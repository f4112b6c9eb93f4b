package policy

// MatchModel reports whether a model's name matches pattern, where * stands for any text (a slash included) and ? for one
// byte; upper and lower case differ. It takes at most len(pattern) x len(name) steps and allocates nothing.
func MatchModel(pattern, name string) bool {
	p, n := 0, 0
	star, resume := -1, 0 // the last * seen, and where in name it stops
	for n < len(name) {
		switch {
		case p < len(pattern) && pattern[p] == '*':
			star, resume = p, n
			p++
		case p < len(pattern) && (pattern[p] == '?' || pattern[p] == name[n]):
			p++
			n++
		case star >= 0:
			resume++
			p, n = star+1, resume
		default:
			return false
		}
	}
	for p < len(pattern) && pattern[p] == '*' {
		p++
	}
	return p == len(pattern)
}
