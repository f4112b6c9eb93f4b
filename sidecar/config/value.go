package config

import (
	"encoding"
	"errors"
	"fmt"
	"reflect"
	"strconv"

	"github.com/semproxy/semproxy/policy"
	"github.com/semproxy/semproxy/policy/strict"
)

func kindOf(t reflect.Type) string {
	switch {
	case t == reflect.TypeFor[policy.ByteSize]():
		return "size"
	case t == reflect.TypeFor[policy.Duration]():
		return "duration"
	case t.Kind() == reflect.Bool:
		return "true|false"
	case t.Kind() == reflect.Int, t.Kind() == reflect.Float64:
		return "number"
	case t == reflect.TypeFor[[]string]():
		return "texts"
	case t.Kind() == reflect.Slice:
		return "list"
	default:
		return "text"
	}
}

// text writes a value as setText reads it, but a list, which is only counted.
func text(v reflect.Value) string {
	if s, ok := v.Interface().(fmt.Stringer); ok {
		return s.String()
	}
	if v.Kind() == reflect.Slice {
		if v.Len() == 0 {
			return "[]"
		}
		return strconv.Itoa(v.Len()) + " entries"
	}
	return fmt.Sprint(v.Interface())
}

// setText sets v from the text of a variable or a flag. source names that for problems inside a list.
func setText(v reflect.Value, s, source, path string) error {
	if u, ok := v.Addr().Interface().(encoding.TextUnmarshaler); ok {
		return u.UnmarshalText([]byte(s))
	}
	switch v.Kind() {
	case reflect.String:
		v.SetString(s)
	case reflect.Bool:
		switch s {
		case "true", "false":
			v.SetBool(s == "true")
		default:
			return errors.New("must be true or false")
		}
	case reflect.Int:
		n, err := strconv.Atoi(s)
		if err != nil {
			return errors.New("must be a whole number")
		}
		v.SetInt(int64(n))
	case reflect.Float64:
		x, err := strconv.ParseFloat(s, 64)
		if err != nil {
			return errors.New("must be a number")
		}
		v.SetFloat(x)
	default:
		return setList(v, s, source, path)
	}
	return nil
}

// setList reads a list written as YAML on one line: [{match: "llama*", tokenizerFile: t.json}].
func setList(v reflect.Value, s, source, path string) error {
	holder := reflect.New(reflect.StructOf([]reflect.StructField{{
		Name: "List", Type: v.Type(), Tag: reflect.StructTag(`yaml:"` + path + `"`),
	}}))
	if _, err := strict.Decode(source, []byte(path+": "+s), holder.Interface()); err != nil {
		return err
	}
	v.Set(holder.Elem().Field(0))
	return nil
}
