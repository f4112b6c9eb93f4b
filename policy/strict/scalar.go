package strict

import (
	"encoding"
	"fmt"
	"math"
	"reflect"
	"strconv"
	"strings"
	"time"

	"go.yaml.in/yaml/v3"
)

// text decodes a scalar through the type's own UnmarshalText.
func (d *decoder) text(p at, n *yaml.Node, v reflect.Value) {
	if n.Kind != yaml.ScalarNode || isNull(n) {
		d.want(p, "must be a single value", n)
		return
	}
	if v.Type() == durationType {
		duration, err := time.ParseDuration(n.Value)
		if err != nil {
			d.want(p, "must be a duration such as 1m30s", n)
			return
		}
		v.SetInt(int64(duration))
		return
	}
	if err := v.Addr().Interface().(encoding.TextUnmarshaler).UnmarshalText([]byte(n.Value)); err != nil {
		problem := err.Error()
		if p.secret {
			problem = "is not valid"
		}
		d.want(p, problem, n)
	}
}

func (d *decoder) scalar(p at, n *yaml.Node, v reflect.Value) {
	tag := n.ShortTag()
	if n.Kind != yaml.ScalarNode {
		tag = "" // a mapping or a list: of no scalar kind
	}
	switch v.Kind() {
	case reflect.String:
		switch tag {
		case "!!str":
			v.SetString(n.Value)
		case "!!int", "!!float", "!!bool", "!!timestamp", "!!binary":
			d.want(p, "must be text (put it in quotes)", n)
		default:
			d.want(p, "must be text", n)
		}
	case reflect.Bool:
		var b bool
		if tag != "!!bool" || n.Decode(&b) != nil {
			d.want(p, "must be true or false", n)
			return
		}
		v.SetBool(b)
	case reflect.Int, reflect.Int8, reflect.Int16, reflect.Int32, reflect.Int64:
		var i int64
		if tag != "!!int" || n.Decode(&i) != nil || v.OverflowInt(i) {
			d.want(p, "must be a whole number"+signedRange(v), n)
			return
		}
		v.SetInt(i)
	case reflect.Uint, reflect.Uint8, reflect.Uint16, reflect.Uint32, reflect.Uint64:
		var u uint64
		if tag != "!!int" || n.Decode(&u) != nil || v.OverflowUint(u) {
			d.want(p, "must be a whole number"+unsignedRange(v), n)
			return
		}
		v.SetUint(u)
	case reflect.Float32, reflect.Float64:
		var f float64
		if (tag != "!!int" && tag != "!!float") || n.Decode(&f) != nil || math.IsNaN(f) || math.IsInf(f, 0) {
			d.want(p, "must be a finite number", n)
			return
		}
		v.SetFloat(f)
	default:
		d.stop(p, "cannot be read: the program declares a "+v.Type().String())
	}
}

// signedRange and unsignedRange name the range of small integers, which a reader cannot guess.
func signedRange(v reflect.Value) string {
	bits := v.Type().Bits()
	if bits == 64 {
		return ""
	}
	return fmt.Sprintf(" in [%d,%d]", -1<<(bits-1), 1<<(bits-1)-1)
}

func unsignedRange(v reflect.Value) string {
	bits := v.Type().Bits()
	if bits == 64 {
		return ", not negative"
	}
	return fmt.Sprintf(" in [0,%d]", uint64(1)<<bits-1)
}

// shown describes a value in a problem; secrets are not shown.
func shown(n *yaml.Node, secret bool) string {
	switch {
	case n.Kind == yaml.MappingNode:
		return "a mapping"
	case n.Kind == yaml.SequenceNode:
		return "a list"
	case n.Kind == yaml.AliasNode:
		return "an alias"
	case isNull(n):
		return "nothing"
	case secret:
		return "a value that is not shown"
	}
	if s := clip(n.Value); s != "" && !strings.ContainsFunc(s, func(r rune) bool { return r <= ' ' || !strconv.IsPrint(r) }) {
		return s
	}
	return strconv.Quote(clip(n.Value))
}

func clip(s string) string {
	if len(s) > maxShown {
		return strings.ToValidUTF8(s[:maxShown], "") + "..."
	}
	return s
}
