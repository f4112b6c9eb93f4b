package delimiter

// byteOf maps the printable stand-ins of byte-level BPE back to bytes. GPT-2 writes the bytes that are printable in Latin-1
// as themselves and the other 68, in order, as U+0100 and up, so that a vocabulary has no space and no control character.
var byteOf = func() map[rune]byte {
	m := make(map[rune]byte, 256)
	next := rune(0x100)
	for b := range rune(256) {
		printable := b >= '!' && b <= '~' || b >= 0xa1 && b <= 0xac || b >= 0xae
		if printable {
			m[b] = byte(b)
			continue
		}
		m[next] = byte(b)
		next++
	}
	return m
}()

// byteLevel decodes a byte-level token. A token with any other rune in it, such as an added token of spaces, is text as it
// stands, which is what the tokenizers library does.
func byteLevel(token string) string {
	out := make([]byte, 0, len(token))
	for _, r := range token {
		b, ok := byteOf[r]
		if !ok {
			return token
		}
		out = append(out, b)
	}
	return string(out)
}

// byteFallback decodes <0x00> to <0xFF>, the entries that spell bytes outside the vocabulary's characters.
func byteFallback(token string) string {
	if len(token) != 6 || token[:3] != "<0x" || token[5] != '>' {
		return token
	}
	high, low := hexDigit(token[3]), hexDigit(token[4])
	if high < 0 || low < 0 {
		return token
	}
	return string([]byte{byte(high<<4 | low)})
}

func hexDigit(c byte) int {
	switch {
	case c >= '0' && c <= '9':
		return int(c - '0')
	case c >= 'a' && c <= 'f':
		return int(c-'a') + 10
	case c >= 'A' && c <= 'F':
		return int(c-'A') + 10
	}
	return -1
}
