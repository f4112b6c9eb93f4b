package gpu

// reason says why a page is not compressed on the device.
type reason uint8

// Reasons. The first four are of the page, the others of the device.
const (
	reasonWhole  reason = iota + 1 // every token is kept: there is nothing to compute
	reasonMethod                   // the kernels do not have the method
	reasonShape                    // nor the shape
	reasonTooLarge
	reasonNoDevice
	reasonMemory
	reasonLaunch
	reasonLost
	reasonClosed
	reasons
)

var reasonNames = [reasons]string{
	reasonWhole: "whole", reasonMethod: "method", reasonShape: "shape", reasonTooLarge: "too_large", reasonNoDevice: "no_device",
	reasonMemory: "memory", reasonLaunch: "launch", reasonLost: "lost", reasonClosed: "closed",
}

func (r reason) String() string { return reasonNames[r] }
