/* What the drivers tell beside SYCL: which device it is, and how much of its memory is free. */
#ifndef DK_DEVICE_XPU_IDENTITY_H
#define DK_DEVICE_XPU_IDENTITY_H

#include "device/module.h"

/* Fills in uuid and free_bytes of devices that SYCL listed, in its order; what a driver does
   not tell stays "" and 0. */
void dk_xpu_identify(dk_device_info *devices, int count);

#endif
