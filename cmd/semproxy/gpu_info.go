package main

import (
	"fmt"
	"io"
	"text/tabwriter"

	"github.com/spf13/cobra"

	"github.com/semproxy/semproxy/cmd/semproxy/show"
	"github.com/semproxy/semproxy/gpu/cuda"
)

// gpuReport is what "semproxy gpu info" says.
type gpuReport struct {
	Driver  string      `json:"driver,omitempty"`  // path
	Version string      `json:"version,omitempty"` // of CUDA that the driver offers
	Devices []gpuDevice `json:"devices"`
	Problem string      `json:"problem,omitempty"` // why there is no device at all
}

type gpuDevice struct {
	Device          string `json:"device"`
	Name            string `json:"name"`
	MemoryBytes     uint64 `json:"memory_bytes"`
	Capability      string `json:"compute_capability"`
	Multiprocessors int    `json:"multiprocessors"`
	Usable          bool   `json:"usable"`
	Problem         string `json:"problem,omitempty"`
}

func newGPUCommand() *cobra.Command {
	cmd := &cobra.Command{Use: "gpu", Short: "Look at the machine's GPUs"}
	var output string
	info := &cobra.Command{
		Use:   "info",
		Short: "List the GPUs, and say why one cannot be used",
		Long: `Load the CUDA driver as the service would and list its devices: memory, compute capability, and whether pages can be compressed
there. The driver is looked for where SEMPROXY_LIBCUDA says, else where the system has it. A machine without a GPU is no error.`,
		Args: cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			r := describeGPUs()
			return show.As(cmd.OutOrStdout(), output, r, r.write)
		},
	}
	show.Flag(info, &output)
	show.JSONFlag(info, &output)
	cmd.AddCommand(info)
	return cmd
}

func describeGPUs() *gpuReport {
	r := &gpuReport{Devices: []gpuDevice{}}
	driver, err := cuda.Open("")
	if driver != nil {
		r.Driver = driver.Path
		if v := driver.Version; v > 0 {
			r.Version = fmt.Sprintf("%d.%d", v/1000, v%1000/10)
		}
	}
	if err == nil {
		var devices []cuda.Info
		devices, err = driver.Devices()
		for _, d := range devices {
			x := gpuDevice{
				Device: fmt.Sprintf("cuda:%d", d.Index), Name: d.Name, MemoryBytes: d.Memory,
				Capability: fmt.Sprintf("%d.%d", d.Capability[0], d.Capability[1]), Multiprocessors: d.Multiprocessors, Usable: true,
			}
			if err := d.Usable(); err != nil {
				x.Usable, x.Problem = false, err.Error()
			}
			r.Devices = append(r.Devices, x)
		}
	}
	if err != nil {
		r.Problem = err.Error()
	}
	return r
}

func (r *gpuReport) write(w io.Writer) error {
	t := tabwriter.NewWriter(w, 0, 0, 2, ' ', 0)
	if r.Driver != "" {
		fmt.Fprintf(t, "driver\t%s\nCUDA\t%s\n", r.Driver, r.Version)
	}
	if r.Problem != "" {
		fmt.Fprintf(t, "no GPU\t%s\n", r.Problem)
	} else if len(r.Devices) == 0 {
		fmt.Fprintf(t, "no GPU\tthe driver has no device\n")
	}
	for _, d := range r.Devices {
		state := "usable"
		if !d.Usable {
			state = "not usable: " + d.Problem
		}
		fmt.Fprintf(t, "%s\t%s, %s, compute capability %s, %d multiprocessors: %s\n", d.Device, d.Name, show.Size(int(d.MemoryBytes)), d.Capability, d.Multiprocessors, state)
	}
	return t.Flush()
}
