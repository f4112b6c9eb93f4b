package main

import (
	"bytes"
	"fmt"
	"os"
	"strings"

	"github.com/spf13/cobra"

	"github.com/semproxy/semproxy/cmd/semproxy/inject"
)

func newInjectCommand() *cobra.Command {
	var from string
	var o inject.Options
	cmd := &cobra.Command{
		Use:   "inject",
		Short: "Add the sidecar to Kubernetes manifests read from standard input",
		Long: `Read manifests from standard input and write them to standard output with the sidecar in every pod that asks for it by
the label semproxy.io/inject: "true". The change is the one that the chart's admission policy makes when a pod is created;
this command is for clusters before Kubernetes 1.36 and for those who want to see manifests before they are applied.

What a pod is given comes from the chart: --injection is its rendered output, or its ConfigMap RELEASE-injection.
The annotations semproxy.io/engine-container and semproxy.io/engine-port name the engine's container (default: the first)
and its port. Known are Pod, Deployment, StatefulSet, DaemonSet, ReplicaSet, Job, CronJob, PodTemplate, LeaderWorkerSet,
Argo's Rollout, KServe's InferenceService, and lists of them. An object of another kind that asks for the sidecar is an
error that names it; one that does not ask passes as it is. What is not changed keeps its bytes, comments and anchors.`,
		Example: `  helm template semproxy helm/semproxy -n llm --set injection.mode=template -f values.yaml > semproxy.yaml
  helm template vllm vllm/vllm-stack -n llm | semproxy inject --injection semproxy.yaml | kubectl apply -f -`,
		Args: cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			text, err := os.ReadFile(from)
			if err != nil {
				return fmt.Errorf("--injection: %w", err)
			}
			in, err := inject.Read(bytes.NewReader(text))
			if err != nil {
				return fmt.Errorf("%s: %w", from, err)
			}
			report, err := in.Filter(cmd.InOrStdin(), cmd.OutOrStdout(), o)
			if err != nil {
				return err
			}
			tell(cmd, report)
			return nil
		},
	}
	cmd.Flags().StringVar(&from, "injection", "", "file with the chart's ConfigMap RELEASE-injection (required)")
	cmd.Flags().BoolVar(&o.All, "all", false, "every pod, also those without the label, which they get")
	if err := cmd.MarkFlagRequired("injection"); err != nil {
		panic(err) // only for a flag that is not there
	}
	return cmd
}

// tell says on standard error what was done; standard output has the manifests.
func tell(cmd *cobra.Command, r inject.Report) {
	out := cmd.ErrOrStderr()
	switch {
	case len(r.Injected) > 0:
		fmt.Fprintf(out, "semproxy: sidecar added to %s\n", strings.Join(r.Injected, ", "))
	case len(r.Had)+len(r.Mislabelled) == 0:
		fmt.Fprintf(out, "semproxy: nothing changed: no pod has the label %s: \"true\" (--all ignores labels)\n", inject.Label)
	}
	if len(r.Had) > 0 {
		fmt.Fprintf(out, "semproxy: a sidecar was there already in %s\n", strings.Join(r.Had, ", "))
	}
	if len(r.Mislabelled) > 0 {
		fmt.Fprintf(out, "semproxy: WARNING: %s: the label %s stands at the object, where it does nothing; it belongs into the labels of the pod's template\n",
			strings.Join(r.Mislabelled, ", "), inject.Label)
	}
}
