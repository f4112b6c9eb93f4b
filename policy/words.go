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

// Role is whose a message of a chat is.
type Role string

// Record is what the admin console may keep of a tenant's pages.
type Record string

// The words of a policy file.
const (
	MethodNone      Method = "none"      // keeps every token
	MethodSemantic  Method = "semantic"  // merges tokens that mean the same
	MethodPaper     Method = "paper"     // the nearest reading of the SemantiCache paper
	MethodWeighted  Method = "weighted"  // semantic, with merges that cost more the more recent and unusual a token is: the best found
	MethodHybrid    Method = "hybrid"    // semantic, but what the last queries look at stays exact
	MethodUniform   Method = "uniform"   // merges neighbours
	MethodWindow    Method = "window"    // evicts: keeps the first and the last tokens
	MethodKeyNorm   Method = "keynorm"   // evicts: keeps the tokens with the shortest keys
	MethodAttention Method = "attention" // evicts: keeps what the last queries look at

	BudgetEqual    Budget = "equal"
	BudgetAdaptive Budget = "adaptive"
	BudgetLayered  Budget = "layered"

	ClustersShared  Clusters = "shared"
	ClustersPerHead Clusters = "perHead"

	RoleSystem    Role = "system"
	RoleDeveloper Role = "developer"
	RoleUser      Role = "user"
	RoleAssistant Role = "assistant"
	RoleTool      Role = "tool"

	RecordOff   Record = "off"   // nothing but figures
	RecordPages Record = "pages" // the last pages, to try other policies on; their tokens are not shown
	RecordText  Record = "text"  // and what their tokens say

	ViolationRelax  OnViolation = "relax"
	ViolationPass   OnViolation = "pass"
	ViolationReport OnViolation = "report"
)

// Methods lists every Method.
func Methods() []Method {
	return []Method{
		MethodNone, MethodWeighted, MethodSemantic, MethodPaper, MethodHybrid, MethodUniform, MethodWindow, MethodKeyNorm, MethodAttention,
	}
}

// Clusters reports whether the method merges by similarity, so that budget, threshold and chunks mean something.
func (m Method) Clusters() bool {
	return m == MethodWeighted || m == MethodSemantic || m == MethodPaper || m == MethodHybrid
}

// Evicts reports whether the method drops tokens instead of merging them.
func (m Method) Evicts() bool {
	return m == MethodWindow || m == MethodKeyNorm || m == MethodAttention
}

// Ignores lists the keys of a profile that have no meaning with the method; a file that sets one is refused.
func (m Method) Ignores() []string {
	switch {
	case m == MethodWeighted:
		return []string{"threshold"}
	case m == MethodNone:
		return []string{"ratio", "threshold", "budget", "clusters", "exact", "regular", "headWeights", "chunk", "protect", "guard", "fp8", "assign"}
	case !m.Clusters():
		return []string{"threshold", "budget", "clusters", "exact", "regular", "headWeights", "chunk"}
	}
	return []string{"headWeights"}
}

// Budgets lists every Budget.
func Budgets() []Budget { return []Budget{BudgetEqual, BudgetAdaptive, BudgetLayered} }

// ClusterKinds lists every Clusters.
func ClusterKinds() []Clusters { return []Clusters{ClustersShared, ClustersPerHead} }

// Roles lists every Role.
func Roles() []Role {
	return []Role{RoleSystem, RoleDeveloper, RoleUser, RoleAssistant, RoleTool}
}

// Violations lists every OnViolation.
func Violations() []OnViolation {
	return []OnViolation{ViolationRelax, ViolationPass, ViolationReport}
}

// Records lists every Record.
func Records() []Record { return []Record{RecordOff, RecordPages, RecordText} }

// UnmarshalText accepts the words of Records.
func (r *Record) UnmarshalText(text []byte) error { return word(r, text, Records()) }

// UnmarshalText accepts the words of Methods.
func (m *Method) UnmarshalText(text []byte) error { return word(m, text, Methods()) }

// UnmarshalText accepts the words of Budgets.
func (b *Budget) UnmarshalText(text []byte) error { return word(b, text, Budgets()) }

// UnmarshalText accepts the words of ClusterKinds.
func (c *Clusters) UnmarshalText(text []byte) error { return word(c, text, ClusterKinds()) }

// UnmarshalText accepts the words of Roles.
func (r *Role) UnmarshalText(text []byte) error { return word(r, text, Roles()) }

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
