package sidecar

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"sync"

	"go.opentelemetry.io/otel/metric"
	"go.opentelemetry.io/otel/trace"

	"github.com/semproxy/semproxy/compress"
	"github.com/semproxy/semproxy/gpu"
	"github.com/semproxy/semproxy/gpu/cuda"
	"github.com/semproxy/semproxy/pipeline"
	"github.com/semproxy/semproxy/sidecar/config"
	"github.com/semproxy/semproxy/telemetry/semconv"
)

// onGPU is a device as the pipeline takes it: what became of a page on it is written to the page's span.
type onGPU struct{ *gpu.Compressor }

var (
	_ pipeline.Compressor = onGPU{}
	_ pipeline.Measurer   = onGPU{}
	_ pipeline.Compressor = (*compress.Compressor)(nil)
)

// Measure compresses and measures, and says where.
func (c onGPU) Measure(ctx context.Context, in, probe *compress.Input, opt *compress.Options, out *compress.Result, full, got *compress.Attention) (string, error) {
	stats, err := c.Compressor.Measure(ctx, in, probe, opt, out, full, got)
	if stats.Batch > 0 {
		trace.SpanFromContext(ctx).SetAttributes(semconv.Queued.Float64(stats.Queued.Seconds()), semconv.Batch.Int(stats.Batch))
	}
	return stats.Device, err
}

// openGPU opens the device that the configuration names. It returns nil where pages are to be compressed on the CPU, and why;
// an error only where the configuration names a device that cannot be used.
func openGPU(cfg *config.Compress, cpu gpu.CPU, log *slog.Logger, meters metric.MeterProvider) (dev *gpu.Compressor, why string, err error) {
	if cfg.Device == config.DeviceCPU {
		return nil, "compress.device is cpu", nil
	}
	index, named := cfg.CUDA()
	opt := gpu.Options{Memory: int(cfg.GPU.MemoryBytes)}
	if opt.Observer, err = observeGPU(log, meters); err != nil {
		return nil, "", err
	}
	if named {
		opt.Device = index
		if dev, err = gpu.Open(cpu, opt); err != nil {
			return nil, "", fmt.Errorf("compress.device: %s: %w", cfg.Device, err)
		}
		return dev, "", nil
	}
	driver, err := cuda.Open("")
	if err != nil {
		return nil, err.Error(), nil
	}
	devices, err := driver.Devices()
	if err != nil {
		return nil, err.Error(), nil
	}
	var all []error
	for _, info := range devices {
		opt.Device = info.Index
		if dev, err = gpu.Open(cpu, opt); err == nil {
			return dev, "", nil
		}
		all = append(all, fmt.Errorf("cuda:%d: %w", info.Index, err))
	}
	if len(all) == 0 {
		return nil, "the driver has no device", nil
	}
	return nil, errors.Join(all...).Error(), nil
}

// observeGPU turns what happens on a device into metrics and log lines. A reason for a fallback is logged once.
func observeGPU(log *slog.Logger, meters metric.MeterProvider) (gpu.Observer, error) {
	meter := meters.Meter("github.com/semproxy/semproxy/gpu")
	described := map[string]semconv.Metric{}
	for _, m := range semconv.Metrics() {
		described[m.Name] = m
	}
	var err error
	options := func(name string) (metric.InstrumentOption, metric.InstrumentOption) {
		return metric.WithUnit(described[name].Unit), metric.WithDescription(described[name].Description)
	}
	histogram := func(name string) metric.Float64Histogram {
		unit, text := options(name)
		h, e := meter.Float64Histogram(name, unit, text)
		err = errors.Join(err, e)
		return h
	}
	unit, text := options(semconv.MetricGPUBusy)
	busy, e := meter.Float64Counter(semconv.MetricGPUBusy, unit, text)
	err = errors.Join(err, e)
	unit, text = options(semconv.MetricGPUFallbacks)
	fallbacks, e := meter.Int64Counter(semconv.MetricGPUFallbacks, unit, text)
	err = errors.Join(err, e)
	pages, queued := histogram(semconv.MetricGPUBatch), histogram(semconv.MetricGPUQueue)

	ctx := context.Background() // a batch belongs to no single page
	engine := func(name string) metric.MeasurementOption {
		return metric.WithAttributes(semconv.Engine.String(name))
	}
	in, kernels, out := engine(semconv.EngineCopyIn), engine(semconv.EngineKernels), engine(semconv.EngineCopyOut)
	var logged sync.Map
	return gpu.Observer{
		Batch: func(b gpu.Batch) {
			pages.Record(ctx, float64(b.Pages))
			queued.Record(ctx, b.Queued.Seconds())
			busy.Add(ctx, b.CopyIn.Seconds(), in)
			busy.Add(ctx, b.Kernels.Seconds(), kernels)
			busy.Add(ctx, b.CopyOut.Seconds(), out)
		},
		Fallback: func(reason string, cause error) {
			fallbacks.Add(ctx, 1, metric.WithAttributes(semconv.Reason.String(reason)))
			if _, known := logged.LoadOrStore(reason, true); !known {
				log.Warn("gpu_fallback", "reason", reason, "effect", "such pages are computed on the CPU; said once", "error", cause)
			}
		},
		Lost: func(cause error) {
			log.Error("gpu_lost", "effect", "pages are computed on the CPU until it recovers", "error", cause)
		},
		Recovered: func() { log.Info("gpu_recovered") },
	}, err
}
