package dialect

type state uint8

const (
	atValue     state = iota // a value comes
	atFirst                  // the first element of a list, or its end
	atMember                 // the first member of an object, or its end
	atKey                    // a key comes
	inKey                    //
	inKeyEscape              //
	atColon                  //
	atNext                   // a comma, or the end of what is open
	inString                 //
	inEscape                 //
	inHex4                   // so many digits of \u are missing
	inHex3
	inHex2
	inHex1
	inMinus
	inZero
	inDigits
	inPoint
	inFraction
	inExp
	inExpSign
	inExpDigits
	inLiteral
	inScalar // of a text that is not strict: until what ends a scalar
	atEnd    // nothing but white space
	broken   // it was no JSON
)

// plainByte are those that stand for themselves in a string.
var plainByte = func() (t [256]bool) {
	for i := 0x20; i < 256; i++ {
		t[i] = i != '"' && i != '\\'
	}
	return t
}()

func space(b byte) bool { return b == ' ' || b == '\n' || b == '\r' || b == '\t' }

// number says whether a byte goes on with a number, and what it is in then.
func (s *scan) number(c byte) (state, bool) {
	digit := c >= '0' && c <= '9'
	switch {
	case s.state == inScalar:
		return inScalar, !space(c) && c != ',' && c != ']' && c != '}' && c != ':' && c != '{' && c != '[' && c != '"'
	case digit:
		switch s.state {
		case inMinus:
			if c == '0' {
				return inZero, true
			}
			return inDigits, true
		case inDigits:
			return inDigits, true
		case inPoint, inFraction:
			return inFraction, true
		case inExp, inExpSign, inExpDigits:
			return inExpDigits, true
		}
	case c == '.':
		return inPoint, s.state == inZero || s.state == inDigits
	case c == 'e' || c == 'E':
		return inExp, s.state == inZero || s.state == inDigits || s.state == inFraction
	case c == '+' || c == '-':
		return inExpSign, s.state == inExp
	}
	return 0, false
}
