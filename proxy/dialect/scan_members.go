package dialect

// looks says whether the visitor sees what is being read.
func (s *scan) looks() bool { return !s.taking && (s.mode != cutting || s.hiding) }

// decide says what becomes of the member whose key has ended before i.
func (s *scan) decide(i int) error {
	top := &s.stack[len(s.stack)-1]
	name, known := "", false
	if len(s.key) <= maxKey {
		if name, known = interned[string(s.key)]; !known {
			var err error
			if name, err = decodeText(s.key); err != nil {
				return errNotJSON
			}
		}
	}
	if s.next = ignored; !s.looks() || top.place == ignored {
		return nil
	}
	at, what, err := s.visit.member(top.place, name)
	if err != nil {
		return err
	}
	s.next = at
	switch what {
	case passes, watched:
		s.release(i)
	case cut, kept, hidden:
		s.flush(i)
		s.held, s.changed = s.held[:0], true
		if s.mode != cutting {
			s.mode, s.cutTo, s.hiding = cutting, len(s.stack), what == hidden
		}
	}
	if what == kept || what == watched {
		s.taking, s.short, s.named, s.taken, s.takeTo = true, true, name, s.taken[:0], len(s.stack)
	}
	return nil
}

// release lets the member pass that is held up to i.
func (s *scan) release(i int) {
	s.flush(i)
	if s.mode != holding {
		return
	}
	top := &s.stack[len(s.stack)-1]
	held := s.held
	if !top.some && len(held) > 0 && held[0] == ',' {
		held = held[1:]
	}
	top.some = true
	s.out = append(s.out, held...)
	s.mode, s.held = passing, s.held[:0]
}

// flush moves what is before i.
func (s *scan) flush(i int) {
	p := s.piece[s.run:i]
	s.run = i
	if s.taking {
		v := p
		for len(s.taken) == 0 && len(v) > 0 && (space(v[0]) || v[0] == ':') {
			v = v[1:]
		}
		if s.short = s.short && len(s.taken)+len(v) <= s.most; s.short {
			s.taken = append(s.taken, v...)
		}
	}
	switch s.mode {
	case passing:
		s.out = append(s.out, p...)
	case holding:
		s.held = append(s.held, p...)
	}
}

// spell adds piece[from:to] to a key. One that is longer than every name that is looked for passes before it has ended.
func (s *scan) spell(from, to int) {
	if len(s.key) <= maxKey {
		s.key = append(s.key, s.piece[from:min(to, from+maxKey+1-len(s.key))]...)
	}
	if len(s.key) > maxKey && s.mode == holding {
		s.release(to)
	}
}

func (s *scan) measure(p []byte) {
	if s.length < len(s.begins) {
		copy(s.begins[s.length:], p)
	}
	s.length += len(p)
	if s.spy != nil && (s.at == prompts || s.at == prompt) {
		s.spy(p)
	}
}

func (s *scan) note(c byte) {
	if s.length < len(s.begins) {
		s.begins[s.length] = c
	}
	s.length++
}

func (s *scan) leaf(quoted bool) {
	if s.looks() && s.at != ignored {
		s.visit.text(s.at, quoted, s.length, s.begins[:min(s.length, len(s.begins))])
	}
}
