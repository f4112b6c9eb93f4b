package delimiter

import (
	"fmt"
	"strings"
	"testing"
	"unicode"

	"golang.org/x/text/unicode/norm"
)

// tableOf has one entry for each piece, numbered from 0.
func tableOf(pieces ...string) *Table {
	t := new(Table)
	for i, p := range pieces {
		t.set(i, p, false)
	}
	return t
}

// marked is the pieces, each delimited one followed by a bar.
func marked(pieces ...string) string {
	var b strings.Builder
	for i, m := range tableOf(pieces...).MarkBoundary(nil, len(pieces), func(i int) int64 { return int64(i) }) {
		b.WriteString(pieces[i])
		if m != 0 {
			b.WriteString("|")
		}
	}
	return b.String()
}

// bytesOf is a text in tokens of one byte, as byte fallback writes it.
func bytesOf(text string) (pieces []string) {
	for i := range len(text) {
		pieces = append(pieces, text[i:i+1])
	}
	return pieces
}

func TestMarksOfEveryScriptEndClauses(t *testing.T) {
	for name, text := range map[string]string{
		"Chinese":        "北京是中国的首都。|它的历史很长，|有三千多年！|你去过吗？|请看：|第一，|故宫；|第二、|长城…|…|",
		"Japanese":       "東京は日本の首都です。|人口は多い、|本当？|",
		"half-width":     "ﾃﾞｽ｡|ｿｼﾃ､|",
		"full-width":     "Ａ．|Ｂ，|Ｃ！|",
		"vertical":       "甲︐|乙︒|丙︑|丁︓|戊︔|己︕|庚︖|",
		"Arabic":         "مرحبا،|كيف حالك؟|جيد؛|نعم.|",
		"Urdu":           "یہ شہر ہے۔|",
		"Hindi":          "यह शहर है।|श्लोक॥|",
		"Armenian":       "Բարեւ։|այո,|ի՞նչ՝|",
		"Ethiopic":       "ሰላም።|እንዴት፣|ነህ፧|",
		"Tibetan":        "བཀྲ་ཤིས།|བདེ་ལེགས༎|",
		"Burmese":        "မြို့၊|ဖြစ်သည်။|",
		"Khmer":          "ទីក្រុង។|",
		"Greek":          "Τι κάνεις;|Καλά\u0387|",
		"Hebrew":         "בראשית׃|",
		"Mongolian":      "ᠮᠣᠩᠭᠣᠯ᠂|ᠬᠡᠯᠡ᠃|",
		"Korean":         "서울은 수도다.|크다,|",
		"Adlam":          "𞤀𞤣⹁|", // reversed comma
		"line separator": "a\u2028|b\u2029|c\u0085|d",
		"Thai":           "กรุงเทพเป็นเมืองหลวง| ใหญ่มาก| มี 5 เขต",
		"Lao":            "ນະຄອນຫຼວງ| ແມ່ນ",
		"no mark":        "京都 「東京」 ‘a’ ¿b ¡c 3·5 a-b",
	} {
		t.Run(name, func(t *testing.T) {
			plain := strings.ReplaceAll(text, "|", "")
			var runes []string
			for _, r := range plain {
				runes = append(runes, string(r))
			}
			if got := marked(runes...); got != text {
				t.Errorf("a character a token: got %s, want %s", got, text)
			}
			if got := marked(bytesOf(plain)...); got != text {
				t.Errorf("a byte a token: got %s, want %s", got, text)
			}
		})
	}
}

func TestMarksAreFoundWhateverThePieces(t *testing.T) {
	for _, c := range []struct {
		name   string
		pieces []string
		want   string
	}{
		{"a mark in two pieces", []string{"本\xe3\x80", "\x82東"}, "本\xe3\x80\x82東|"},
		{"a mark in three", []string{"本", "\xe3", "\x80", "\x82", "東"}, "本\xe3\x80\x82|東"},
		{"with letters on both sides", []string{"日\xe3", "\x80\x82月"}, "日\xe3\x80\x82月|"},
		{"an empty token between", []string{"\xe3\x80", "", "\x82"}, "。|"},
		{"a beginning that is not continued", []string{"\xe3\x80", "a", "\x82"}, "\xe3\x80a\x82"},
		{"a beginning before another", []string{"\xe3", "\xe3\x80\x82"}, "\xe3\xe3\x80\x82|"},
		{"a space before a Thai word", []string{"ไทย", " ดี", " มาก"}, "ไทย| ดี| มาก"},
		{"a space after a Thai word", []string{"ไทย ", "ดี"}, "ไทย |ดี"},
		{"a space inside a piece", []string{"ไทย ดี", "มาก"}, "ไทย ดี|มาก"},
		{"Thai before a number", []string{"ไทย", " 5", " ดี"}, "ไทย 5 ดี"},
	} {
		if got := marked(c.pieces...); got != c.want {
			t.Errorf("%s: got %q, want %q", c.name, got, c.want)
		}
	}
	table := tableOf("\xe3\x80", "\x82")
	if got := table.MarkBoundary(nil, 3, func(i int) int64 { return []int64{0, 99, 1}[i] }); got[2] != 0 {
		t.Errorf("an unknown token between: got %v, want no mark", got)
	}
}

// What is compatible with text that has a mark is one, so that a vertical or a circled form counts as the plain one does.
func TestCompatibleFormsAreMarksToo(t *testing.T) {
	for r := rune(0x80); r <= unicode.MaxRune; r++ {
		if plain := norm.NFKC.String(string(r)); classify(plain) != None && classOf(r) == None {
			t.Errorf("%s: %q is no mark, and %q is", fmt.Sprintf("%U", r), r, plain)
		}
	}
}

func TestMarkingOverBordersAllocatesNothing(t *testing.T) {
	pieces := append(bytesOf("東京。そして、ไทย ดี"), "東", "。")
	table, buf := tableOf(pieces...), make([]byte, 0, 256)
	if n := testing.AllocsPerRun(10, func() {
		table.MarkBoundary(buf, len(pieces), func(i int) int64 { return int64(i) })
	}); n != 0 {
		t.Errorf("got %v allocations, want none", n)
	}
}
