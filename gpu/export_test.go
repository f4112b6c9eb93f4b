package gpu

// Hurry makes a lost device be probed at once.
func (o Options) Hurry() Options {
	o.hurry = true
	return o
}
