package transport

// Who may stay when not all can. The rule is "the longest queue gives way": when there is no room, the newest request of
// the tenant that has most is displaced (and answered as busy), as long as that tenant would still have more than the one
// that asks. So one tenant may use the whole queue while it is alone, and never keeps another out.

// tenant returns the state of name, making it where it is new. Where the table is full, the tenant that has been idle for
// longest is forgotten (with it, what it had used of its rate); nil if every tenant has something in flight.
func (a *admission) tenant(name string) *tenantState {
	if t, ok := a.tenants[name]; ok {
		if t.rest != nil {
			a.idle.MoveToFront(t.rest)
		}
		return t
	}
	if len(a.tenants) >= a.maxTenants {
		oldest := a.idle.Back()
		if oldest == nil {
			return nil
		}
		a.idle.Remove(oldest)
		delete(a.tenants, oldest.Value.(*tenantState).name)
	}
	t := &tenantState{name: name}
	t.rest = a.idle.PushFront(t)
	a.tenants[name] = t
	return t
}

func (a *admission) push(t *tenantState, r *request) {
	if t.rest != nil {
		a.idle.Remove(t.rest)
		t.rest = nil
	}
	if t.turn == nil {
		t.turn = a.turns.PushBack(t)
	}
	t.queue = append(t.queue, r)
	t.queuedB += r.size
	t.inFlight++
	t.bytes += r.size
	a.queued++
	a.bytes += r.size
}

// leaveQueue accounts for a request that was taken from t.queue and is still in flight.
func (a *admission) leaveQueue(t *tenantState, r *request) {
	t.queuedB -= r.size
	a.queued--
	if len(t.queue) == 0 {
		t.queue = nil
		a.turns.Remove(t.turn)
		t.turn = nil
	}
}

// release accounts for a request that is no longer in flight.
func (a *admission) release(t *tenantState, r *request) {
	t.inFlight--
	t.bytes -= r.size
	a.bytes -= r.size
	if t.inFlight == 0 {
		t.rest = a.idle.PushFront(t)
	}
}

func (a *admission) popNewest(t *tenantState) *request {
	last := len(t.queue) - 1
	r := t.queue[last]
	t.queue[last] = nil
	t.queue = t.queue[:last]
	a.leaveQueue(t, r)
	a.release(t, r)
	return r
}

// makeRoom displaces requests until one of size bytes fits for t. If that cannot be, nothing is displaced.
func (a *admission) makeRoom(t *tenantState, size int64) (displaced []*request, ok bool) {
	for {
		var victim *tenantState
		switch {
		case a.bytes+size > a.maxBytes:
			victim = a.mostBytes()
			if victim != nil && victim.bytes <= t.bytes+size {
				victim = nil
			}
		case a.queued >= a.maxQueue:
			victim = a.longestQueue()
			if victim != nil && len(victim.queue) <= len(t.queue)+1 {
				victim = nil
			}
		default:
			return displaced, true
		}
		if victim == nil || victim == t {
			for i := len(displaced) - 1; i >= 0; i-- {
				a.push(a.tenants[displaced[i].tenant], displaced[i])
			}
			return nil, false
		}
		displaced = append(displaced, a.popNewest(victim))
	}
}

func (a *admission) longestQueue() (longest *tenantState) {
	for e := a.turns.Front(); e != nil; e = e.Next() {
		if t := e.Value.(*tenantState); longest == nil || len(t.queue) > len(longest.queue) {
			longest = t
		}
	}
	return longest
}

func (a *admission) mostBytes() (most *tenantState) {
	for e := a.turns.Front(); e != nil; e = e.Next() {
		if t := e.Value.(*tenantState); most == nil || t.queuedB > most.queuedB {
			most = t
		}
	}
	return most
}
