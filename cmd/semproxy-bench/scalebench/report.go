package scalebench

import (
	"context"
	"errors"
)

// Plan is what is simulated.
type Plan struct {
	Nodes      []int      `json:"nodes"`
	Seconds    float64    `json:"seconds"`
	Seed       uint64     `json:"seed"`
	Deployment Deployment `json:"deployment"`
}

// DefaultPlan is 1 to 1,000 nodes.
func DefaultPlan() Plan {
	return Plan{Nodes: []int{1, 2, 4, 8, 16, 32, 64, 128, 256, 512, 1000}, Seconds: 1, Seed: 1, Deployment: DefaultDeployment()}
}

// Report is all that a run found.
type Report struct {
	When       string `json:"when"`
	Machine    string `json:"machine"`
	Load       string `json:"load"` // when the run began
	Namespaces bool   `json:"namespaces"`
	WhyNot     string `json:"why_no_namespaces,omitempty"`
	Rows       []Row  `json:"measured"`
	Leaf       *Row   `json:"leaf_nodes,omitempty"` // two nodes, each with a NATS server of its own

	Plan      Plan        `json:"plan"`
	Costs     Costs       `json:"costs_of_a_page"` // that the simulation counts with
	Predicted []Result    `json:"predicted"`       // for each of Rows
	Simulated []Simulated `json:"simulated"`
}

// Simulated is one topology, by the plan's numbers of nodes.
type Simulated struct {
	Topology  Topology  `json:"topology"`
	Results   []Result  `json:"results"`
	Bounds    []float64 `json:"bound_tokens_per_second"`
	Saturates int       `json:"saturates_at_nodes"` // 0: not within the plan's largest
	Limit     string    `json:"limit"`
}

// Take adds what was measured.
func (r *Report) Take(row *Row) {
	if row.Work == Leaves {
		r.Leaf = row
		return
	}
	r.Rows = append(r.Rows, *row)
}

// costs are those that the simulation counts with: what a page takes of each part with the fewest sidecars, which have all they can do,
// and the time and its spread of a page that is alone.
func costs(rows []Row, work string) (Costs, error) {
	var all []Costs
	for _, r := range rows {
		if r.Work == work {
			all = append(all, r.Costs)
		}
	}
	if len(all) < 2 {
		return Costs{}, errors.New("two sizes of each kind of work must be measured at least")
	}
	c := all[1]
	c.Latency, c.Spread = all[0].Latency, all[0].Spread
	return c, nil
}

// Simulate fills in what follows from what was measured. The same measurements and the same seed give the same.
func (r *Report) Simulate(ctx context.Context) (err error) {
	if r.Costs, err = costs(r.Rows, Cores); err != nil {
		return err
	}
	r.Predicted, r.Simulated = nil, nil
	for _, row := range r.Rows {
		c, err := costs(r.Rows, row.Work)
		if err != nil {
			return err
		}
		p, err := Predict(&c, row.Machine, row.Sidecars, row.Clients, 60, r.Plan.Seed)
		if err != nil {
			return err
		}
		r.Predicted = append(r.Predicted, p)
	}
	most := 1
	for _, n := range r.Plan.Nodes {
		most = max(most, n)
	}
	for _, t := range Topologies {
		s := Simulated{Topology: t}
		for _, n := range r.Plan.Nodes {
			if err := ctx.Err(); err != nil {
				return err
			}
			one, err := Simulate(&r.Costs, &r.Plan.Deployment, t, n, r.Plan.Seconds, r.Plan.Seed)
			if err != nil {
				return err
			}
			bound, _ := Bound(&r.Costs, &r.Plan.Deployment, t, n)
			s.Results, s.Bounds = append(s.Results, one), append(s.Bounds, bound)
		}
		s.Saturates, s.Limit = Saturates(&r.Costs, &r.Plan.Deployment, t, most)
		r.Simulated = append(r.Simulated, s)
	}
	return nil
}
