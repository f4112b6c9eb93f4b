package policy

import (
	"fmt"
	"slices"
	"strings"
)

// Method is the way to compress.
type Method string

// Budget is how the cores are spread over layers and heads.
type Budget string

// Clusters says who shares a clustering.
type Clusters string

// OnViolation is what happens when a guard's bound is exceeded.
type OnViolation string

// The words of a policy file.
const (
	MethodNone     Method = "none"
	MethodSemantic Method = "semantic"
	MethodPaper    Method = "paper"

	BudgetEqual    Budget = "equal"
	BudgetAdaptive Budget = "adaptive"

	ClustersShared  Clusters = "shared"
	ClustersPerHead Clusters = "perHead"

	ViolationRelax  OnViolation = "relax"
	ViolationPass   OnViolation = "pass"
	ViolationReport OnViolation = "report"
)

// Methods lists every Method.
func Methods() []Method { return []Method{MethodNone, MethodSemantic, MethodPaper} }

// Budgets lists every Budget.
func Budgets() []Budget { return []Budget{BudgetEqual, BudgetAdaptive} }

// ClusterKinds lists every Clusters.
func ClusterKinds() []Clusters { return []Clusters{ClustersShared, ClustersPerHead} }

// Violations lists every OnViolation.
func Violations() []OnViolation {
	return []OnViolation{ViolationRelax, ViolationPass, ViolationReport}
}

// UnmarshalText accepts the words of Methods.
func (m *Method) UnmarshalText(text []byte) error { return word(m, text, Methods()) }

// UnmarshalText accepts the words of Budgets.
func (b *Budget) UnmarshalText(text []byte) error { return word(b, text, Budgets()) }

// UnmarshalText accepts the words of ClusterKinds.
func (c *Clusters) UnmarshalText(text []byte) error { return word(c, text, ClusterKinds()) }

// UnmarshalText accepts the words of Violations.
func (v *OnViolation) UnmarshalText(text []byte) error { return word(v, text, Violations()) }

func word[T ~string](dst *T, text []byte, known []T) error {
	if w := T(text); slices.Contains(known, w) {
		*dst = w
		return nil
	}
	names := make([]string, len(known))
	for i, k := range known {
		names[i] = string(k)
	}
	return fmt.Errorf("must be one of %s", strings.Join(names, ", "))
}
