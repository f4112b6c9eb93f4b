package simd

import (
	"math"
	"reflect"
	"slices"
	"testing"
)

// A set that lacks a kernel would be found by whoever calls it.
func TestEverySetIsComplete(t *testing.T) {
	var walk func(t *testing.T, name string, v reflect.Value)
	walk = func(t *testing.T, name string, v reflect.Value) {
		for i := range v.NumField() {
			f, what := v.Field(i), name+"."+v.Type().Field(i).Name
			switch f.Kind() {
			case reflect.Struct:
				walk(t, what, f)
			case reflect.Func:
				if f.IsNil() {
					t.Errorf("%s is nil", what)
				}
			}
		}
	}
	for _, k := range All() {
		walk(t, k.Name, reflect.ValueOf(*k))
	}
}

// NaN, infinities, subnormals and zeros go through every lane as they go through the plain loop. What NaN is rounded to is
// left open: pages with NaN are refused, and the merged cores of finite keys are finite.
func TestSpecialValues(t *testing.T) {
	special := []float32{float32(math.NaN()), float32(math.Inf(1)), float32(math.Inf(-1)), math.SmallestNonzeroFloat32, -1e-40, 0,
		float32(math.Copysign(0, -1)), math.MaxFloat32}
	same := func(a, b float32) bool {
		return a == b && math.Signbit(float64(a)) == math.Signbit(float64(b)) || a != a && b != b
	}
	for _, k := range All() {
		for _, x := range special {
			for at := range 32 {
				a, ones := make([]float32, 32), make([]float32, 32)
				for i := range ones {
					ones[i] = 1
				}
				a[at] = x
				if got, want := k.Dot(a, ones), dot(a, ones); !same(got, want) && got != want {
					t.Errorf("%s: dot with %v at %d = %v, want %v", k.Name, x, at, got, want)
				}
				s := make([]float32, 16)
				k.Dots(s, 4, slices.Concat(a, ones, ones, a), slices.Concat(ones, a, ones, ones), 4, 4, 32)
				if !same(s[0], x) && s[0] != x {
					t.Errorf("%s: dots with %v at %d = %v, want it back", k.Name, x, at, s[0])
				}
				for name, f := range map[string]func(set *Kernels, y []float32){
					"scale":    func(set *Kernels, y []float32) { set.Scale(y, 0.5) },
					"axpy":     func(set *Kernels, y []float32) { set.Axpy(y, ones, 0) },
					"unrotate": func(set *Kernels, y []float32) { set.Unrotate(y[:16], y[16:], ones[:16], make([]float32, 16)) },
				} {
					y, want := append([]float32{}, a...), append([]float32{}, a...)
					f(k, y)
					f(&generic, want)
					for i := range y {
						if !same(y[i], want[i]) {
							t.Errorf("%s: %s with %v at %d: [%d] = %v, want %v", k.Name, name, x, at, i, y[i], want[i])
						}
					}
				}
				if x != x {
					continue
				}
				for name, narrow := range map[string][2]func([]byte, []float32){
					"bf16": {k.BF16.Narrow, genericBF16.Narrow}, "f16": {k.F16.Narrow, genericF16.Narrow},
					"e4m3": {func(d []byte, s []float32) { k.NarrowE4M3(d, s, 1) }, func(d []byte, s []float32) { narrowE4M3(d, s, 1) }},
				} {
					got, want := make([]byte, 64), make([]byte, 64)
					narrow[0](got, a)
					narrow[1](want, a)
					if string(got) != string(want) {
						t.Errorf("%s: %s of %v at %d = %x, want %x", k.Name, name, x, at, got, want)
					}
				}
				if got, want := k.MaxAbs(a), max(x, -x); got != want {
					t.Errorf("%s: maxAbs with %v at %d = %v, want %v", k.Name, x, at, got, want)
				}
			}
		}
	}
}
