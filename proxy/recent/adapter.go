package recent

// maxAdapters bounds the models that an adapter is known to work for.
const maxAdapters = 1024

// sawAdapter notes that an engine's adapter works for a model: it sent a page or returned parameters. The caller holds the lock.
func (r *Ring) sawAdapter(model string) {
	if len(r.adapters) < maxAdapters {
		r.adapters[model] = true
	}
}

// AdapterSeen says whether an adapter has worked for a model since the start. Without one nothing is compressed, whatever is decided.
func (r *Ring) AdapterSeen(model string) bool {
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.adapters[model]
}
